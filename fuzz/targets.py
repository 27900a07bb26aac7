"""The targets, by name: what is called with invented bytes, and what of the package is watched meanwhile.

A target is a function of bytes that raises on any breach, so tests and fuzzers call the same one. They are imported
only when one is asked for, because a fuzzer instruments what a target imports. The invariant: no two targets share a
name, which is that of the folder of their corpus too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Target(NamedTuple):
    """One of them: the function `name` of `module`; `tokens` are what its input is made of."""

    name: str
    module: str
    function: str
    pure: bool = True  # it opens and starts nothing
    longest: int = 2048  # bytes of one input
    tokens: tuple[str, ...] = ()

    def load(self) -> Callable[[bytes], None]:
        """Import the function."""
        function: Callable[[bytes], None] = getattr(importlib.import_module(self.module), self.function)
        return function


_JSON = ("{", "}", "[", "]", '"', ":", ",", "null", "true", "false", "NaN", "1e999", "\\u0000", "\\ud800", "\n")
_LINES = ('"type":"', '"id":', "hello", "launch", "poll", "exited", "versions", "run_id", "argv", "receipt", "\xfe")
_FACTS = ('"pid":', '"format":1', '"outcome":', '"started":', '"acknowledged":', '"stopping":"asked"', '"launch":')
_NOTICE = ("READY=1", "STOPPING=1", "WATCHDOG=1", "WATCHDOG=trigger", "MAINPID=", "STATUS=", "\n", "=", "\0")
_BUS = ("a{sv}", "(uo)", "ay", "\1", "\0", "\2", "ActiveState", "MainPID", "inactive", "failed", "l\2\0\1", "/")
_HTTP = ("HTTP/1.1", " 200", " 301", " 503 ", "\r\n", "\n", "HTTP/", " OK")
_WORDS = ("tcp:", "http:", "http://", "command:", "notify", "localhost", "[::1]", ":80", "/", "'", '"', "\\", "vsock:")
_NAMES = ("cmapp://host/", "cmapp://guest/", "n1", "vm1", "CMAPP://", "\0", "\n", "\xff", "%2e", "\x86", "\x82", "..")
_PEM = ("-----BEGIN ", "-----END ", "-----", "CERTIFICATE", "X509 CRL", "NEW CERTIFICATE REQUEST", "\n", "=", "MII")
_TOML = ("[[allow]]\n", "[application.web]\n", " = ", "'''", '"""', "0x", "inf", "nan", "1979-05-27", "= [", "={", "\n")
_PACKAGE = ("[vm]\n", "[service.a]\n", "[settings]\n", "domain", "unit", "command", "service_restart", "env", "limit")
_OPTIONS = ("--env\0", "--limit\0", "--user\0", "--ready\0", "--listen\0", "--output\0", "nofile=1:2", "A=b", "\0")

TARGETS = {
    target.name: target
    for target in (
        Target("wire", "fuzz.lines", "wire", longest=4096, tokens=_JSON + _LINES),
        Target("session", "fuzz.lines", "session", tokens=_JSON + _LINES),
        Target("crossing", "fuzz.lines", "crossing"),
        Target("crowd", "fuzz.crowd", "crowd"),
        Target("checked", "fuzz.values", "checked"),
        Target("verdict", "fuzz.values", "verdict"),
        Target("words", "fuzz.values", "words", tokens=_WORDS),
        Target("ledger", "fuzz.disk", "ledger_lines", tokens=_JSON + _FACTS),
        Target("facts", "fuzz.disk", "facts", tokens=_FACTS),
        Target("receipts", "fuzz.disk", "receipts", pure=False, tokens=_JSON + _FACTS),
        Target("handover", "fuzz.disk", "handover", pure=False, tokens=(*_JSON, '"lock":', '"listeners":', '"runs":')),
        Target("rights", "fuzz.rights", "rights"),
        Target("pattern", "fuzz.rights", "pattern", longest=256, tokens=("*", "**", "?", "..", "/", "...")),
        Target("notice", "fuzz.said", "notice", tokens=_NOTICE),
        Target("bus", "fuzz.bus", "bus", tokens=_BUS),
        Target("http", "fuzz.said", "http", tokens=_HTTP),
        Target("records", "fuzz.records", "records", pure=False, longest=512),
        Target("port", "fuzz.port", "port", pure=False, longest=512, tokens=_LINES),
        Target("certificate", "fuzz.records", "certificate", pure=False, longest=512, tokens=_NAMES),
        Target("statement", "fuzz.stores", "statement", longest=512),
        Target("asn1", "fuzz.stores", "asn1", longest=512),
        Target("keystore", "fuzz.stores", "keystore", pure=False, longest=256),
        Target("texts", "fuzz.stores", "texts", pure=False, longest=512, tokens=_PEM),
        Target("folder", "fuzz.stores", "folder", pure=False, longest=512, tokens=_NAMES),
        Target("inquiry", "fuzz.asking", "inquiry", pure=False, longest=512, tokens=_LINES),
        Target("manager", "fuzz.asking", "manager", pure=False, longest=512, tokens=_LINES),
        Target("config", "fuzz.config", "config", pure=False, tokens=_TOML),
        Target("arguments", "fuzz.config", "arguments", pure=False, tokens=_OPTIONS),
        Target("package", "fuzz.packages", "package", tokens=_TOML + _PACKAGE),
    )
}
