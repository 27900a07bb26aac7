"""What `--ready` and the command options mean: text as a person writes it, checked as far as text can be.

    notify                  the application says so by sd_notify
    tcp:8080                somebody accepts connections on that port of this guest
    tcp:192.0.2.7:8080      and of that address
    http:8080/health        the page is answered with 2xx or 3xx; http://[::1]:8080/health does as well
    command:/bin/check -q   the command exits with 0

The invariant: what is accepted names an address, or localhost, and so can be asked without looking up a name,
which would keep the server's loop waiting. The server checks again by `target_of`, for it has other clients.
"""

from __future__ import annotations

from cmapp.core import checks
from cmapp.core.record import Record
from cmapp.core.rules import Probe, ReadyRules
from cmapp.errors import SettingsError

LOCALHOST = "localhost"
LOOPBACK = ("127.0.0.1", "::1")
EXAMPLES = "write notify, tcp:8080, tcp:192.0.2.7:8080, http:8080/health or command:/usr/bin/check --quiet"
HTTP = "http://"
HTTP_PORT = 80
HIGHEST_PORT = 65535
BLANKS = " \t\r\n"
DIGITS = frozenset("0123456789")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_QUADS, _GROUPS, _QUAD_LIMIT, _GROUP_LENGTH = 4, 8, 255, 4


class Target(Record):
    """What a probe asks: one of the IP addresses `hosts`, whichever answers, on a TCP port.

    `authority` and `path` are what HTTP wants to know, empty for a probe that only connects.
    """

    hosts: tuple[str, ...]
    port: int
    authority: str = ""
    path: str = ""


def parse_ready(text: str, timeout: float = 60.0) -> ReadyRules:
    """Return the rules that `text` means, with `timeout` in seconds; raises SettingsError for what is none."""
    _check(text)
    word, colon, rest = text.strip().partition(":")
    if word == "notify" and not colon:
        return ReadyRules(probe=Probe.NOTIFY, timeout=timeout)
    if word == "tcp" and colon:
        rules = ReadyRules(probe=Probe.TCP, target=rest, timeout=timeout)
    elif word == "http" and colon:
        rules = ReadyRules(probe=Probe.HTTP, target=_url(rest), timeout=timeout)
    elif word == "command" and colon:
        return ReadyRules(probe=Probe.COMMAND, command=parse_words(rest), timeout=timeout)
    elif word == "https" and colon:
        raise SettingsError(f"{text!r} cannot be asked: https needs a command, such as command:/usr/bin/curl -fsS URL")
    else:
        raise SettingsError(f"{text!r} does not say when it is ready: {EXAMPLES}")
    target_of(rules)
    return rules


def parse_words(text: str) -> tuple[str, ...]:
    r"""Return the words of the command `text`, quoted as for a shell by '', "" and \; raises SettingsError.

    Nothing else of a shell is known: $HOME, * and | stand for themselves.
    """
    _check(text)
    words: list[str] = []
    word: str | None = None  # None between words: '' is a word too
    quote = ""
    chars = iter(text)
    for char in chars:
        if quote == "'" and char != quote:
            word = f"{word or ''}{char}"
        elif char == "\\":
            word = f"{word or ''}{_escaped(next(chars, ''), quote, text)}"
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, word = char, word or ""
        elif not quote and char in BLANKS:
            words += [] if word is None else [word]
            word = None
        else:
            word = f"{word or ''}{char}"
    if quote:
        raise SettingsError(f"the command {text!r} has a quote {quote} that is not closed")
    words += [] if word is None else [word]
    if not words or not words[0]:
        raise SettingsError(f"{text!r} is not a command: write the program and its arguments, as for a shell")
    if len(words) > checks.LIST_LIMIT:
        raise SettingsError(f"a command of {len(words)} words is too long: at most {checks.LIST_LIMIT}")
    return tuple(words)


def target_of(rules: ReadyRules) -> Target | None:
    """Return whom the probe asks, None if it asks nobody by TCP; raises SettingsError for rules nobody can follow."""
    if rules.probe is Probe.TCP:
        text = f"tcp:{rules.target}"
        host, colon, port = rules.target.rpartition(":")
        return Target(_hosts(text, host if colon else LOCALHOST), _port(text, port))
    if rules.probe is Probe.HTTP:
        return _page(rules.target)
    if rules.probe is Probe.COMMAND and not rules.command:
        raise SettingsError("the command that tells whether it is ready is missing")
    return None


def _escaped(char: str, quote: str, text: str) -> str:
    r"""Return what `\` and `char` stand for: inside "", only \" and \\ are special."""
    if not char:
        raise SettingsError(f"the command {text!r} ends with a backslash that has nothing to stand for")
    return f"\\{char}" if quote and char not in '"\\' else char


def _check(text: str) -> None:
    """Refuse what no message can carry."""
    try:
        checks.text(text)
    except ValueError as error:
        raise SettingsError(f"{text[: checks.SHOWN]!r} {error}") from None


def _url(text: str) -> str:
    """Return the URL that is meant by `//host:8080/path`, `host:8080/path` or `8080/path`."""
    rest = text.removeprefix("http:")
    if not rest.startswith("//") and DIGITS.issuperset(_authority(rest)):
        return f"{HTTP}{LOCALHOST}:{rest}"
    return HTTP + rest.removeprefix("//")


def _page(url: str) -> Target:
    if not (url.isascii() and url.isprintable()) or set(url) & set(' "<>\\#@') or not url.startswith(HTTP):
        raise SettingsError(f"{url!r} is not a page to ask for: write http://localhost:8080/health, in plain ASCII")
    rest = url.removeprefix(HTTP)
    authority = _authority(rest)
    path = rest[len(authority) :]
    host, port = authority, str(HTTP_PORT)
    if ":" in authority and not authority.endswith("]"):
        host, _, port = authority.rpartition(":")
    return Target(_hosts(url, host), _port(url, port), authority, path if path.startswith("/") else f"/{path}")


def _authority(rest: str) -> str:
    """Return what stands before the path and the query."""
    return rest.partition("/")[0].partition("?")[0]


def _hosts(text: str, host: str) -> tuple[str, ...]:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host == LOCALHOST:
        return LOOPBACK
    if (bare == host and _is_ipv4(host)) or (bare != host and _is_ipv6(bare)):
        return (bare,)
    if _is_ipv6(host):
        raise SettingsError(f"{text!r} has an IPv6 address without brackets: write [{host}]")
    raise SettingsError(
        f"{text!r} cannot be asked: write localhost or an IP address such as 192.0.2.7 or [2001:db8::1]"
        " (names are not looked up, to keep the server from waiting for it)"
    )


def _port(text: str, port: str) -> int:
    if port and DIGITS.issuperset(port) and len(port) <= len(str(HIGHEST_PORT)) and 1 <= int(port) <= HIGHEST_PORT:
        return int(port)
    raise SettingsError(f"{text!r} has no usable port: give a number from 1 to {HIGHEST_PORT}")


def _is_ipv4(text: str) -> bool:
    quads = text.split(".")
    return len(quads) == _QUADS and all(
        quad and DIGITS.issuperset(quad) and quad == (quad.lstrip("0") or "0") and len(quad) < _QUADS
        and int(quad) <= _QUAD_LIMIT for quad in quads
    )  # fmt: skip


def _is_ipv6(text: str) -> bool:
    head, gap, tail = text.partition("::")
    groups = [group for half in (head, tail) if half for group in half.split(":")]
    count = len(groups)
    if groups and not text.endswith("::") and _is_ipv4(groups[-1]):
        count += 1
        groups.pop()
    if not all(group and len(group) <= _GROUP_LENGTH and HEX_DIGITS.issuperset(group) for group in groups):
        return False
    return count < _GROUPS if gap else count == _GROUPS
