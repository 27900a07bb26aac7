"""What `--ready` and commands mean, as people write them."""

from __future__ import annotations

import shlex
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core.readiness import LOOPBACK, Target, parse_ready, parse_words, target_of
from cmapp.core.rules import Probe, ReadyRules
from cmapp.errors import SettingsError

HERE = "http://localhost:8080"

MEANT: list[tuple[str, ReadyRules, Target | None]] = [
    ("notify", ReadyRules(probe=Probe.NOTIFY), None),
    (" notify\n", ReadyRules(probe=Probe.NOTIFY), None),
    ("tcp:8080", ReadyRules(probe=Probe.TCP, target="8080"), Target(LOOPBACK, 8080)),
    ("tcp:localhost:1", ReadyRules(probe=Probe.TCP, target="localhost:1"), Target(LOOPBACK, 1)),
    ("tcp:192.0.2.7:65535", ReadyRules(probe=Probe.TCP, target="192.0.2.7:65535"), Target(("192.0.2.7",), 65535)),
    ("tcp:[2001:db8::1]:80", ReadyRules(probe=Probe.TCP, target="[2001:db8::1]:80"), Target(("2001:db8::1",), 80)),
    ("http:8080", ReadyRules(probe=Probe.HTTP, target=HERE), Target(LOOPBACK, 8080, "localhost:8080", "/")),
    ("http:8080/a?b", ReadyRules(probe=Probe.HTTP, target=f"{HERE}/a?b"),
     Target(LOOPBACK, 8080, "localhost:8080", "/a?b")),
    ("http:8080?b=/", ReadyRules(probe=Probe.HTTP, target=f"{HERE}?b=/"),
     Target(LOOPBACK, 8080, "localhost:8080", "/?b=/")),
    ("http://localhost/x", ReadyRules(probe=Probe.HTTP, target="http://localhost/x"),
     Target(LOOPBACK, 80, "localhost", "/x")),
    ("http:http://[::1]:81/x", ReadyRules(probe=Probe.HTTP, target="http://[::1]:81/x"),
     Target(("::1",), 81, "[::1]:81", "/x")),
    ("http:127.0.0.2:81/", ReadyRules(probe=Probe.HTTP, target="http://127.0.0.2:81/"),
     Target(("127.0.0.2",), 81, "127.0.0.2:81", "/")),
    ("command:/usr/bin/pg_isready -q", ReadyRules(probe=Probe.COMMAND, command=("/usr/bin/pg_isready", "-q")), None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rules", "target"), MEANT, ids=[text for text, _, _ in MEANT])
def test_what_is_meant(text: str, rules: ReadyRules, target: Target | None) -> None:
    """Each way to write it becomes rules, and whom to ask."""
    assert parse_ready(text) == rules
    assert target_of(rules) == target
    assert parse_ready(text, timeout=7.0).timeout == 7.0


REFUSED = [
    ("", "'' does not say when it is ready: write notify, tcp:8080,"),
    ("ready", "does not say when it is ready"),
    ("notify:", "does not say when it is ready"),
    ("tcp", "does not say when it is ready"),
    ("tcp:", "'tcp:' has no usable port: give a number from 1 to 65535"),
    ("tcp:0", "has no usable port"),
    ("tcp:65536", "has no usable port"),
    ("tcp:080808", "has no usable port"),
    ("tcp:²", "has no usable port"),
    ("tcp:vm1:80", "cannot be asked: write localhost or an IP address"),
    ("tcp:localhost.:80", "cannot be asked"),
    ("tcp:[127.0.0.1]:80", "cannot be asked"),
    ("tcp:::1:80", "has an IPv6 address without brackets: write [::1]"),
    ("tcp:127.0.0.1", "has no usable port"),
    ("http:", "has no usable port"),
    ("http:/health", "has no usable port"),
    ("http://www.example.org/", "'http://www.example.org/' cannot be asked: write localhost or"),
    ("http://localhost:x/", "has no usable port"),
    ("http://user@localhost/", "is not a page to ask for"),
    ("http:8080/a b", "is not a page to ask for"),
    ("http:8080/\r\nHost: x", "is not a page to ask for"),
    ("http:8080/é", "is not a page to ask for"),
    ("http:8080/#top", "is not a page to ask for"),
    ("https://localhost/", "https needs a command, such as command:/usr/bin/curl -fsS URL"),
    ("command:", "is not a command"),
    ("command: ", "is not a command"),
    ("command:'x", "has a quote ' that is not closed"),
    ("tcp:\0", "has a NUL or a lone surrogate in it"),
    ("command:\udc80", "has a NUL or a lone surrogate in it"),
    ("command:" + "x" * 40000, "is longer than 32768 characters"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[ascii(text)[:30] for text, _ in REFUSED])
def test_what_is_refused(text: str, reason: str) -> None:
    """Whoever wrote what cannot be asked reads why, and what to write."""
    with pytest.raises(SettingsError) as refusal:
        parse_ready(text)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    "rules",
    [
        ReadyRules(probe=Probe.TCP),
        ReadyRules(probe=Probe.TCP, target="vm1:80"),
        ReadyRules(probe=Probe.HTTP, target="8080"),
        ReadyRules(probe=Probe.HTTP, target="http://vm1/"),
        ReadyRules(probe=Probe.COMMAND),
    ],
    ids=repr,
)
def test_server_refuses_what_another_client_asks(rules: ReadyRules) -> None:
    """A client that did not use our parser still cannot make the server look up a name."""
    with pytest.raises(SettingsError):
        target_of(rules)


ADDRESSES: list[tuple[str, bool]] = [
    ("::", True), ("::1", True), ("1::", True), ("1:2:3:4:5:6:7:8", True), ("1:2:3:4:5:6:7::", True),
    ("::ffff:192.0.2.7", True), ("1:2:3:4:5:6:192.0.2.7", True), ("FE80::a", True), ("1::192.0.2.7", True),
    ("", False), (":", False), (":::", False), ("1", False), ("1:2:3:4:5:6:7", False), ("1:2:3:4:5:6:7:8:9", False),
    ("1:2:3:4:5:6:7:8::", False), ("::1::", False), ("12345::", False), ("g::", False), ("1.2.3.4::", False),
    ("fe80::1%eth0", False), ("::192.0.2", False), ("::192.0.2.256", False), ("1:", False), (":1", False),
    ("192.0.2.7::", False), ("::1.2.3.4:5", False),
]  # fmt: skip


@pytest.mark.parametrize(("address", "accepted"), ADDRESSES, ids=[address or "empty" for address, _ in ADDRESSES])
def test_ipv6(address: str, accepted: bool) -> None:  # noqa: FBT001 - a column of the table
    """An IPv6 address is told from what only looks like one."""
    rules = ReadyRules(probe=Probe.TCP, target=f"[{address}]:80")
    if accepted:
        assert target_of(rules) == Target((address,), 80)
    else:
        with pytest.raises(SettingsError):
            target_of(rules)


@pytest.mark.parametrize("address", ["1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1..2.3", "1.2.3.x", "0x1.2.3.4"])
def test_no_ipv4(address: str) -> None:
    """What some resolvers take for an IPv4 address is none."""
    with pytest.raises(SettingsError):
        parse_ready(f"tcp:{address}:80")


WORDS: list[tuple[str, tuple[str, ...]]] = [
    ("a", ("a",)),
    ("  a\tb\n", ("a", "b")),
    ("a 'b c'", ("a", "b c")),
    ("a ''", ("a", "")),
    ('a "it\'s"', ("a", "it's")),
    ("a'b'\"c\"d", ("abcd",)),
    (r"a\ b", ("a b",)),
    (r'"a\"b\\c\d"', (r'a"b\c\d',)),
    (r"'\'", ("\\",)),
    ("echo $HOME * | # x", ("echo", "$HOME", "*", "|", "#", "x")),
    ("é ü", ("é", "ü")),
]


@pytest.mark.parametrize(("text", "words"), WORDS, ids=[text for text, _ in WORDS])
def test_words(text: str, words: tuple[str, ...]) -> None:
    """Commands are split as by a shell that knows quotes only."""
    assert parse_words(text) == words


@pytest.mark.parametrize("text", ["", " ", "''", "'' a", "a 'b", 'a "b', "a\\", "a\0", "x " * 5000], ids=ascii)
def test_no_words(text: str) -> None:
    """What is no command, or was not finished, is refused."""
    with pytest.raises(SettingsError):
        parse_words(text)


@given(st.text(st.sampled_from(" \t'\"\\ab$é" + string.punctuation), max_size=30))
def test_words_as_the_library_splits_them(text: str) -> None:
    """Our small rules agree with the standard library's."""
    expected: Any
    try:
        expected = tuple(shlex.split(text)) or None
    except ValueError:
        expected = None
    if expected is None or not expected[0]:
        with pytest.raises(SettingsError):
            parse_words(text)
    else:
        assert parse_words(text) == expected


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_quoted_words_come_back(words: list[str]) -> None:
    """Whatever a program quotes for a shell is read as it was."""
    words[0] = "x" + words[0]
    assert parse_words(shlex.join(words)) == tuple(words)
