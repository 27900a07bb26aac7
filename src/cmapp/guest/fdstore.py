"""Process descriptors that systemd keeps while there is no server, so that an end in that time is told as it was.

A pidfd that was opened while its process lived tells how it ended even after somebody else has reaped it (Linux
6.15). systemd keeps descriptors for a unit with FileDescriptorStoreMax=, by name, and hands them to the next start.
The invariant: what is kept is a help; without it, and whatever systemd answers, all goes on.
"""

from __future__ import annotations

import os

from cmapp.guest.service import tell_systemd

_FIRST = 3  # SD_LISTEN_FDS_START


def keep(name: str, descriptor: int) -> None:
    """Have systemd keep a copy of `descriptor` under `name`, until told otherwise."""
    # Without FDPOLL=0 it would be dropped as soon as its process was reaped, which is when it is of use.
    _send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptor)


def drop(name: str) -> None:
    """Have systemd keep nothing under `name` any more."""
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def kept() -> dict[str, int]:
    """Return what systemd kept for us, by name, the latest of each; to be called once."""
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    count, ours = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    if not ours or not count.isdecimal():
        return {}
    found: dict[str, int] = {}
    for number, name in zip(range(_FIRST, _FIRST + int(count)), names, strict=False):
        try:
            os.set_inheritable(number, False)
        except OSError:
            continue
        if name in found:
            os.close(found[name])
        found[name] = number
    return found


def _send(words: str, *descriptors: int) -> None:
    try:
        tell_systemd(words, *descriptors, patience=0)
    except OSError:
        pass  # systemd is behind, or gone
