"""A manager that asks somebody else about a guest that it cannot reach, before it gives it up."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.opinion import Opinion
from cmapp.core.outcome import Exited, Own
from cmapp.core.reading import Word
from cmapp.host.opinion import Question
from cmapp.host.settings import Settings
from tests.shell.manager_bed import SOON, Guest, outcome_in, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

RARELY = ("--poll-interval", "1h")


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


class Oracle:
    """A command that says what its file says, and counts how often it is asked."""

    def __init__(self, folder: Path) -> None:
        self.word = folder / "word"
        self.asked = folder / "asked"
        self.command = folder / "oracle"
        self.command.write_text(f"#!/bin/sh\necho asked >>{self.asked}\nexec cat {self.word}\n")
        self.command.chmod(0o755)

    def says(self, text: str) -> tuple[str, ...]:
        """Have it say that; return the options that make a manager ask it."""
        new = self.word.with_suffix(".new")
        new.write_text(text)
        new.rename(self.word)
        return ("--second-opinion", str(self.command))

    @property
    def times(self) -> int:
        """How often it was asked."""
        return self.asked.read_text().count("asked") if self.asked.exists() else 0


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    """Return somebody to ask."""
    return Oracle(tmp_path)


def test_guest_that_is_down_ends_the_wait_at_once(guest: Guest, oracle: Oracle, tmp_path: Path) -> None:
    """Long before the link's time is over, with a cause of its own, and the log and the result say who said so."""
    told = tmp_path / "result"
    options = (*RARELY, "--link-timeout", "10m", "--result", str(told), *oracle.says("down (crashed)\n"))
    manager, peer, _ = guest.launched(*options)
    assert oracle.times == 0
    guest.stop_listening()
    peer.close()
    began = time.monotonic()
    assert manager.ends() == Own.UNREACHABLE
    assert time.monotonic() - began < 10
    assert "is gone with its guest, which is down: " in manager.lines()[-1]
    assert manager.lines()[-1].endswith("exit code 123 means that the guest is down")
    assert "of the guest it is said: down (crashed)" in "\n".join(manager.lines())
    assert outcome_in(told)["cause"] == "guest-down"


@pytest.mark.parametrize("word", ["running", "elsewhere", "unknown: libvirtd does not answer", "flying", ""])
def test_whatever_else_is_said_the_link_has_its_time(guest: Guest, oracle: Oracle, word: str) -> None:
    """Not to be able to tell is never "down"; the verdict is what it would have been, and repeats what was said."""
    manager, peer, _ = guest.launched(*RARELY, "--link-timeout", "1", *oracle.says(word))
    guest.stop_listening()
    peer.close()
    began = time.monotonic()
    assert manager.ends() == Own.UNREACHABLE
    assert time.monotonic() - began >= 0.9
    known = word.partition(":")[0] if word not in ("flying", "") else "unknown"
    assert f"of the guest it is said: {known}" in manager.lines()[-1]
    assert manager.lines()[-1].endswith("means that the server was unreachable")


def test_paused_guest_has_more_time_and_is_found_again(guest: Guest, oracle: Oracle) -> None:
    """While it is said to be paused the wait goes on, far past the link's own time; then the same run is there."""
    manager, peer, launch = guest.launched(*RARELY, "--link-timeout", "1", *oracle.says("paused (I/O error)\n"))
    peer.reset()
    deaf = guest.accept()
    manager.says("paused (I/O error); it has more time")
    time.sleep(2.5)  # more than the link's time
    assert manager.process.poll() is None
    deaf.reset()
    again = guest.accept()
    again.reattach()
    manager.says("back after")
    again.say(m.Exited(receipt(launch, Exited(7))))
    assert manager.ends() == 7


def test_pause_has_a_bound(guest: Guest, oracle: Oracle) -> None:
    """A guest that stands still for ever is given up all the same."""
    manager, peer, _ = guest.launched(
        *RARELY, "--link-timeout", "500ms", "--pause-timeout", "1500ms", *oracle.says("migrating\n")
    )
    guest.stop_listening()
    peer.close()
    began = time.monotonic()
    assert manager.ends() == Own.UNREACHABLE
    assert time.monotonic() - began >= 1.4
    assert "of the guest it is said: migrating" in manager.lines()[-1]


def test_who_cannot_be_asked_is_told(guest: Guest, tmp_path: Path) -> None:
    """A command that is not there is said so, once, and nothing is concluded from it."""
    manager, peer, _ = guest.launched(
        *RARELY, "--link-timeout", "500ms", "--second-opinion", f"{tmp_path}/nobody --really"
    )
    guest.stop_listening()
    peer.close()
    assert manager.ends() == Own.UNREACHABLE
    told = [line for line in manager.lines() if "nobody cannot be executed: No such file" in line]
    assert len(told) == 2  # when it was answered, and at the end


def test_bound_at_the_start_counts_it(guest: Guest, oracle: Oracle) -> None:
    """What is printed first says whom it will ask, and what that adds."""
    manager, _, _ = guest.launched(*oracle.says("running"))
    line = manager.says("watching web")
    assert f"within 55 s, after asking {oracle.command} (a guest that is paused has 10 min 0 s more)" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--domain", "erp", "--second-opinion", "/bin/true"), "two answers to one question"),
        (("--second-opinion", "true"), "no absolute path"),
    ],
)
def test_settings_that_contradict(guest: Guest, options: tuple[str, ...], words: str) -> None:
    """Nothing is connected for them."""
    manager = guest.call(*options)
    assert manager.ends() == Own.FAILED
    assert words in manager.lines()[-1]


def ask(*command: str) -> tuple[Opinion, float]:
    """Ask, and return the answer and how long it took."""
    question, began = Question(command), time.monotonic()
    question.ask(began)
    while (opinion := question.answer(time.monotonic())) is None:
        assert time.monotonic() - began < SOON
        time.sleep(0.01)
    return opinion, time.monotonic() - began


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The time of an answer is bounded; whoever was asked, and its children, are gone then, and reaped."""
    monkeypatch.setattr("cmapp.host.opinion.OPINION_LIMIT", 0.3)
    note = tmp_path / "pids"
    opinion, took = ask("/bin/sh", "-c", f"sleep 1000 & echo $$ $! >{note}; wait")
    assert opinion.state is Word.UNKNOWN
    assert "gave no answer within 0.3 s" in opinion.text
    assert 0.3 <= took < 5
    asked, child = map(int, note.read_text().split())
    with pytest.raises(ChildProcessError):
        os.waitpid(asked, os.WNOHANG)
    gone = time.monotonic() + SOON
    while Path(f"/proc/{child}/exe").exists():
        assert time.monotonic() < gone
        time.sleep(0.01)


def test_who_does_not_end_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said until then counts: a command may answer and hang."""
    monkeypatch.setattr("cmapp.host.opinion.OPINION_LIMIT", 0.3)
    assert ask("/bin/sh", "-c", "echo paused; sleep 1000")[0] == Opinion(Word.PAUSED, "paused")


def test_flood_of_words_is_cut() -> None:
    """A command that never stops talking is stopped."""
    opinion, took = ask("/bin/sh", "-c", "echo down; exec yes")
    assert opinion.state is Word.DOWN
    assert len(opinion.text) <= 300
    assert took < 5


def test_command_has_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither our environment nor any descriptor but the first three; `ls` itself opens the folder that it lists."""
    monkeypatch.setenv("SECRET", "x")
    opinion, _ = ask("/bin/sh", "-c", "echo running $SECRET; exec ls /proc/self/fd")
    assert opinion.text == "running 0 1 2 3"


def test_libvirt_is_asked_by_our_own_installation() -> None:
    """`--domain` needs no path: what answers is of the same version."""
    assert Settings(domain="erp").whom_to_ask[-3:] == ("cmapp.cli.vmrun", "state", "erp")
