"""Addresses as people write them: `vm1`, `vm1:5315`, `192.0.2.7:5315`, `2001:db8::1`, `[2001:db8::1]:5315`.

Responsible for the text only: nothing is looked up and nothing is opened here. The invariant: what is
accepted is either an IP address or a name that a resolver and a certificate can both hold, so nothing further
down meets a host that it cannot encode.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_pton

from cmapp.core.record import Record
from cmapp.errors import SettingsError

DEFAULT_PORT = 5315
ANY = "*"  # the host of an address to listen on that means every interface, IPv4 and IPv6

# The last label is no number, or a resolver would take `1.2.3` for an IPv4 address.
_LABEL = "[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_HIGHEST_PORT = 65535
_EXAMPLES = "write vm1, vm1:5315, 192.0.2.7:5315 or [2001:db8::1]:5315"


class Address(Record):
    """Where to connect or to listen: a name, an IP address (IPv6 without brackets) or ANY, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write the address so that it can be parsed again."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address to connect to that `text` means; raises SettingsError for what is none."""
    host, port = _split(text)
    if not (is_ip_address(host) or is_host_name(host)):
        raise SettingsError(f"{text!r} is not an address: {_EXAMPLES}")
    return Address(host, _port(text, port, lowest=1) if port is not None else default_port)


def parse_listen_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address to listen on that `text` means, where no host is ANY and port 0 is a free one."""
    host, port = _split(text)
    if host == "" and port:
        host = ANY
    if not (host == ANY or is_ip_address(host) or is_host_name(host)):
        raise SettingsError(f"{text!r} is not an address to listen on: {_EXAMPLES}, or :5315 for all")
    return Address(host, _port(text, port, lowest=0) if port is not None else default_port)


def is_ip_address(text: str) -> bool:
    """Tell whether `text` is an IPv4 address, or an IPv6 address without brackets (a `%zone` may follow)."""
    address, percent, zone = text.partition("%")
    family = AF_INET6 if ":" in text else AF_INET
    try:
        inet_pton(family, address)
    except (OSError, ValueError):
        return False
    return not percent or (family == AF_INET6 and zone.isalnum())


def is_host_name(text: str) -> bool:
    """Tell whether `text` is a name that a resolver and a certificate can both hold, in ASCII."""
    return _NAME.fullmatch(text) is not None


def _split(text: str) -> tuple[str, str | None]:
    """Cut `text` into host and port: no port is None, and brackets that do not fit leave no host."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _port(text: str, port: str, *, lowest: int) -> int:
    # Python refuses to read a number of thousands of digits, so its length is looked at first.
    if port.isascii() and port.isdigit() and len(port) <= len(str(_HIGHEST_PORT)):
        number = int(port)
        if lowest <= number <= _HIGHEST_PORT:
            return number
    raise SettingsError(f"{text!r} has no usable port: give a number from {lowest} to {_HIGHEST_PORT}")
