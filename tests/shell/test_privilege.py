"""What a server keeps of root's powers: the choice itself, and the words for it."""

from __future__ import annotations

import os

import pytest

from cmapp.guest.privilege import NUMBERS, OWN, SWITCHING, is_confined, may_be_root, needed, told

ALWAYS = {"kill", "sys_ptrace", "sys_resource", "dac_read_search"}


@pytest.mark.parametrize(
    ("users", "root"),
    [
        (None, True),
        ({"root"}, True),
        ({"0"}, True),
        ({"00"}, True),
        ({"daemon", "root"}, True),
        ({"daemon"}, False),
        ({"daemon", "1234"}, False),
        ({"no-such-user"}, False),
        ({"9" * 5000}, False),
        ({"x\0y"}, False),
        (set(), False),
        ({""}, os.geteuid() == 0),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # a set's order is any
)
def test_who_may_be_root(users: set[str] | None, *, root: bool) -> None:
    """Root by name, by number, or as the server's own user; nobody else, and whoever may be anybody."""
    assert may_be_root(users) is root


def test_where_root_may_run_it_keeps_what_it_needs_itself() -> None:
    """What switching takes comes back with each program that root executes, so the server need not keep it."""
    assert needed(may_be_root=True, may_switch=True) == ALWAYS


def test_where_root_never_runs_it_keeps_what_switching_takes() -> None:
    """Nothing comes back there, so what the trampoline needs is kept for it."""
    assert needed(may_be_root=False, may_switch=True) == ALWAYS | {"setuid", "setgid", "chown"}
    assert needed(may_be_root=False, may_switch=False) == ALWAYS


def test_a_cgroup_that_is_closed_takes_one_more() -> None:
    """The outermost cgroup is read-only even to its owner."""
    assert needed(may_be_root=True, may_switch=True, closed_cgroup=True) == ALWAYS | {"dac_override"}


def test_each_has_its_reason_and_number() -> None:
    """Whatever is kept is known by number, and there is a word on what for."""
    assert set(OWN) == ALWAYS
    assert all(NUMBERS[name] >= 0 and reason for name, reason in {**OWN, **SWITCHING}.items())


def test_the_words_for_it() -> None:
    """The sentence names the user where that is not root, and else what is kept and what applications have."""
    free, confined = told(None), told({"daemon"})
    if os.geteuid() != 0:
        assert "not by root: applications run as that user only" in free == confined
        return
    assert "kill (to signal processes of any user)" in free
    assert "applications that run as root have all that it was given" in free
    assert "setuid" not in free
    assert "setuid (to become other users)" in confined
    assert "no application may run as root" in confined


def test_these_tests_are_not_confined() -> None:
    """Or else those of real servers would show nothing."""
    assert not is_confined()
