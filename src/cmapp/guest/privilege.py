"""What the server itself may do: of root's powers it keeps those that its work needs, and lays the others down.

A program that root executes has all of root's powers again, up to a bound. So where applications may run as root the
server lays down only its own, and gets them back with what it starts. Where the configuration lets none run as root
the bound is lowered too, and being root gives nothing any more: such a server is *confined*, for good, with all that
it starts. The invariant: nothing is laid down that launching, signalling, watching or finding an application needs.

Powers belong to threads: this has to be done while there is one. Keys are kept out of core dumps here, too.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pwd
import struct
from typing import TYPE_CHECKING

from cmapp.guest import proc

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)

NUMBERS = {  # linux/capability.h
    "chown": 0,
    "dac_override": 1,
    "dac_read_search": 2,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "sys_ptrace": 19,
    "sys_resource": 24,
}
OWN = {  # what each is for, in the server itself
    "kill": "to signal processes of any user",
    "sys_ptrace": "to know whose a process is, and how one ended that is not its child",
    "dac_read_search": "to read pid files and keys in closed folders",
    "sys_resource": "for large pipes, limits, and the room on a disk that is kept for root",
}
CLOSED = {"dac_override": "to make cgroups in one that is not open to it, as the outermost is"}
SWITCHING = {"setuid": "to become other users", "setgid": "and their groups", "chown": "to give them their output"}
_ALL = {**OWN, **CLOSED, **SWITCHING}

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 27, 28
_PR_CAP_AMBIENT, _AMBIENT_RAISE = 47, 2
_NOROOT, _NOROOT_LOCKED = 1, 2
_VERSION_3 = 0x20080522
_HALF = 32  # bits of a word of capset(2)
_MOST = 64  # capabilities that the kernel's interface has room for


def hide_memory() -> None:
    """Have neither a core dump nor another process of our user show what is in memory: keys will be.

    What is executed from here on may be dumped like anything else.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def needed(*, may_be_root: bool, may_switch: bool, closed_cgroup: bool = False) -> frozenset[str]:
    """Return the capabilities that a server of root has to keep, by names such as "kill".

    What applications that run as root have comes back by itself: if some may, those for switching come with it.
    """
    kept = frozenset(OWN)
    if closed_cgroup:
        kept |= CLOSED.keys()
    if may_switch and not may_be_root:
        kept |= SWITCHING.keys()
    return kept


def may_be_root(users: Collection[str] | None) -> bool:
    """Tell whether one of `users` is root; "" is the server's own user, None means any."""
    return users is None or any(_number(user) == 0 for user in users)


def is_confined() -> bool:
    """Tell whether being root gives nothing here, neither to us nor to what we start."""
    return bool(_prctl(_PR_GET_SECUREBITS) & _NOROOT)


def shrink(users: Collection[str] | None, *, closed_cgroup: bool = False) -> None:
    """Lay down what is not needed to run applications as `users`, and tell the log what is kept.

    To be called when the server listens, before it has a second thread.
    """
    has = _held("CapPrm")
    if os.geteuid() != 0 or not has:
        log.info("%s", told(users))
        return
    root = may_be_root(users)
    if root and is_confined():
        log.error("applications may run as root by the settings of now: that takes a server that is started anew")
        root = False
    names = needed(may_be_root=root, may_switch=True, closed_cgroup=closed_cgroup)
    keep = _mask(names) & has
    if not root and not is_confined():
        root = not _confine(keep)
    elif not root:
        _set(keep, keep, keep)
    if root:
        _set(keep, keep, _held("CapInh"))
    log.info("%s", told(users, closed_cgroup=closed_cgroup))
    if lacking := [name for name in sorted(names) if not has >> NUMBERS[name] & 1]:
        log.info("this root lacks %s", "; ".join(f"{name} ({_ALL[name]})" for name in lacking))


def told(users: Collection[str] | None, *, closed_cgroup: bool = False) -> str:
    """Return a sentence on what a server with these users keeps of root's powers, and why."""
    if os.geteuid() != 0:
        return f"the server is run by user {_name(os.geteuid())}, not by root: applications run as that user only"
    root = may_be_root(users)
    names = needed(may_be_root=root, may_switch=True, closed_cgroup=closed_cgroup)
    has = _held("CapPrm")
    kept = "; ".join(f"{name} ({_ALL[name]})" for name in _ALL if name in names and has >> NUMBERS[name] & 1)
    if root:
        return (
            f"of root's powers the server itself keeps {kept}; applications that run as root have all that it was given"
        )
    return (
        f"of root's powers the server keeps {kept}; no application may run as root, and what becomes root below it,"
        " as by sudo, has no power"
    )


def _confine(keep: int) -> bool:
    """Keep `keep` and never get more, nor anything that we start; return whether this root is let do so."""
    if not _held("CapEff") >> NUMBERS["setpcap"] & 1:
        log.warning("this root may not confine itself (it lacks setpcap): what it starts can get its powers back")
        return False
    _prctl(_PR_SET_SECUREBITS, _prctl(_PR_GET_SECUREBITS) | _NOROOT | _NOROOT_LOCKED)
    for number in range(_MOST):
        if not keep >> number & 1 and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _prctl(_PR_CAPBSET_DROP, number)
    _set(keep, keep, keep)
    for number in range(_MOST):
        if keep >> number & 1:
            _prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, number)  # for what prepares applications, and for an upgrade
    return True


def _held(which: str) -> int:
    """Return a set of capabilities of this process, as /proc/self/status names it."""
    for line in proc.read("/proc/self/status").splitlines():
        name, _, value = line.partition(b":")
        if name == which.encode():
            return int(value, 16)
    return 0


def _set(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    words = [word >> shift & 0xFFFFFFFF for shift in (0, _HALF) for word in sets]
    header, data = struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", *words)
    if _libc.capset(ctypes.create_string_buffer(header), ctypes.create_string_buffer(data)) != 0:
        raise _error()


def _prctl(option: int, first: int = 0, second: int = 0) -> int:
    answer = int(_libc.prctl(option, *map(ctypes.c_ulong, (first, second, 0, 0))))
    if answer < 0:
        raise _error()
    return answer


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _mask(names: Collection[str]) -> int:
    return sum(1 << NUMBERS[name] for name in names)


def _number(user: str) -> int | None:
    """Return a user's number, None if there is no such user."""
    if not user:
        return os.geteuid()
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):  # ValueError: thousands of digits, or what no name has
        return None


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


_libc = ctypes.CDLL(None, use_errno=True)
