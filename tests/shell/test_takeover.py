"""A name changes hands: only when its manager is gone, or is pushed aside on purpose, and never with two runs alive."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import OnExisting, StopRules
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
BOOK = 'echo start >> "$0"; trap "echo end >> $0; exit 7" TERM; echo up; while :; do sleep 0.01; done'


def booked(caller: Caller, book: Path, **fields: object) -> int:
    """Launch an application that keeps a book of its starts and ends, and wait until it runs."""
    pid = caller.launch("sh", "-c", BOOK, str(book), output=True, **fields)
    caller.wrote(b"up")
    return pid


def test_manager_that_is_overdue(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """A newcomer waits for as long as the manager before it may be silent, and then its run takes the place."""
    server, book = serve(), tmp_path / "book"
    first, second = call(server, silence=1.0), call(server)
    booked(first, book)
    second.try_to_launch("sh", "-c", BOOK, str(book), name=first.name)
    assert second.report().state is m.Phase.WAITING
    second.await_(m.Launched)
    assert "too long" in first.bye()
    until(lambda: book.read_text() == "start\nend\nstart\n", "the second run started after the first had ended")
    again = call(server)
    assert again.resume(first, output=False).attached
    receipt = again.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Exited(7), Reason.REPLACED)


def test_replace(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A run whose manager is gone is stopped by its rules, and the newcomer's is started when nothing is left of it."""
    book = tmp_path / "book"
    first, second = call(), call()
    booked(first, book)
    first.close()
    second.launch("sh", "-c", BOOK, str(book), name=first.name)
    until(lambda: book.read_text() == "start\nend\nstart\n", "one after the other")
    assert second.stop().receipt.reason is Reason.ASKED
    assert book.read_text() == "start\nend\nstart\nend\n"


def test_attach(call: Callable[..., Caller]) -> None:
    """A newcomer that wants what is there gets it under the run id that it has, with its end."""
    first, second = call(), call()
    pid = first.launch("sleep", "1000")
    first.close()
    second.try_to_launch("false", name=first.name, on_existing=OnExisting.ATTACH)
    launched = second.await_(m.Launched)
    assert (launched.run_id, launched.pid, launched.attached) == (first.run_id, pid, True)
    assert second.report().run_id == first.run_id
    second.run_id = first.run_id
    assert second.stop().outcome == Signaled(15)


def test_attach_to_what_is_being_stopped(call: Callable[..., Caller]) -> None:
    """What is being stopped already is nothing to attach to: the newcomer's own run is started when it is gone."""
    first, second = call(), call()
    before = first.launch(*DEAF, output=True, stop=StopRules(timeout=0.5))
    first.wrote(b"up")
    first.ask(m.Done, m.Stop)
    first.close()
    second.launch("sleep", "1000", name=first.name, on_existing=OnExisting.ATTACH)
    assert not alive(before)


def test_attach_while_it_is_launched(call: Callable[..., Caller]) -> None:
    """Who attaches to a run that is only just being launched is told that it did, and hears its end."""
    for _ in range(10):
        first, second = call(), call()
        first.try_to_launch("sleep", "1000")
        second.try_to_launch("sleep", "1000", name=first.name, on_existing=OnExisting.ATTACH)
        first.close()
        launched = second.await_(m.Launched)
        assert launched.attached == (launched.run_id == first.run_id)
        second.run_id = launched.run_id
        assert second.stop(kill=True).outcome == Signaled(9)


def test_refuse(call: Callable[..., Caller]) -> None:
    """A newcomer that wants no run but its own is refused while another lives, even one that nobody watches."""
    first, second = call(), call()
    pid = first.launch("sleep", "1000")
    first.close()
    refusal = second.refused("true", name=first.name, on_existing=OnExisting.REFUSE)
    assert (refusal.code, alive(pid)) == ("name-taken", True)
    third = call()
    assert third.resume(first, output=False).pid == pid
    third.stop()
    assert second.run("true", name=first.name, on_existing=OnExisting.REFUSE).outcome == Exited(0)


def test_takeover_replaces(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A takeover does not wait for the other manager, which is told how its run ended."""
    book = tmp_path / "book"
    first, second = call(), call()
    booked(first, book)
    second.launch("sh", "-c", BOOK, str(book), name=first.name, takeover=True)
    receipt = first.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Exited(7), Reason.REPLACED)
    until(lambda: book.read_text() == "start\nend\nstart\n", "one after the other")
    assert first.report().state is m.Phase.ENDED
    assert second.report().state is m.Phase.RUNNING


def test_takeover_attaches(call: Callable[..., Caller]) -> None:
    """A takeover can leave the run as it is: the other manager is told who watches it, and hung up on."""
    first, second = call(), call()
    pid = first.launch("sleep", "1000")
    second.try_to_launch("false", name=first.name, takeover=True, on_existing=OnExisting.ATTACH)
    assert second.await_(m.Launched).pid == pid
    assert first.bye() == f"manager n1 watches {first.name} from here on"
    assert alive(pid)


def test_takeover_by_run_id(call: Callable[..., Caller]) -> None:
    """A takeover of a run that it knows is attached at once."""
    first, second = call(instance="one"), call(instance="two")
    pid = first.launch("sleep", "1000")
    assert second.attach(first.name, first.run_id, takeover=True).pid == pid
    assert "watches" in first.bye()


def test_same_process_comes_again(call: Callable[..., Caller]) -> None:
    """A manager's next connection takes the place of its last at once, though that one is not known to be dead."""
    first = call(instance="one")
    pid = first.launch("sleep", "1000")
    second = call(instance="one")
    assert first.bye() == "the same manager is on another link"
    assert second.resume(first).pid == pid
    assert second.stop().outcome == Signaled(15)


def test_same_run_id_of_another_process(call: Callable[..., Caller]) -> None:
    """A second manager with the same run id is refused while the first answers, and attached when that is gone."""
    first, second = call(instance="one"), call(instance="two")
    pid = first.launch("sleep", "1000")
    second.try_to_launch("sleep", "1000", name=first.name, run_id=first.run_id)
    assert second.report().state is m.Phase.WAITING
    assert first.report().pid == pid
    assert second.await_(m.Refused).code == "name-taken"
    second.try_to_launch("sleep", "1000", name=first.name, run_id=first.run_id)
    first.close()
    launched = second.await_(m.Launched)
    assert (launched.pid, launched.attached) == (pid, True)


def test_nameless_processes_are_not_the_same(call: Callable[..., Caller]) -> None:
    """Two managers that do not say who they are may be two: neither pushes the other aside."""
    first, second = call(), call()
    first.launch("sleep", "1000")
    second.try_to_launch("sleep", "1000", name=first.name, run_id=first.run_id, resume=True)
    first.report()
    assert second.await_(m.Refused).code == "name-taken"


def test_newcomer_that_waits_comes_again(call: Callable[..., Caller]) -> None:
    """A manager that waits and connects anew goes on waiting with its new connection."""
    first, second = call(), call(instance="two")
    first.launch("sleep", "1000")
    second.try_to_launch("sleep", "1000", name=first.name)
    assert second.report().state is m.Phase.WAITING
    third = call(instance="two")
    assert "another link" in second.bye()
    third.try_to_launch("sleep", "1000", name=first.name, run_id=second.run_id)
    assert third.report().state is m.Phase.WAITING
    first.close()
    assert third.await_(m.Launched).run_id == second.run_id


def test_run_that_ended_is_not_started_again(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A launch of a run id that has ended tells how, as often as it comes, acknowledged or not."""
    caller = call()
    command = ("sh", "-c", 'echo x >> "$0"; exit 3', str(tmp_path / "book"))
    caller.launch(*command)
    assert caller.await_(m.Exited).receipt.outcome == Exited(3)
    caller.close()
    for resume in (False, True, False):
        again = call()
        again.try_to_launch(*command, name=caller.name, run_id=caller.run_id, resume=resume)
        assert again.await_(m.Launched).attached
        assert again.ended().outcome == Exited(3)
    assert (tmp_path / "book").read_text() == "x\n"


def test_run_that_is_not_known(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A run that is only to be resumed is not started when nothing is known of it."""
    caller = call()
    refusal = caller.refused("touch", str(tmp_path / "never"), resume=True)
    assert (refusal.code, (tmp_path / "never").exists()) == ("no-run", False)
    assert caller.run("true").outcome == Exited(0)


def test_run_id_of_another_application(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A run id belongs to one application: another name with it gets neither that run nor one of its own."""
    first, second, third = call(), call(), call()
    first.launch("sleep", "1000")
    touch = ("touch", str(tmp_path / "never"))
    assert second.refused(*touch, run_id=first.run_id).code == "name-taken"
    assert second.refused(*touch, run_id=first.run_id, takeover=True).code == "name-taken"
    first.stop()
    assert third.refused(*touch, run_id=first.run_id).code == "no-run"
    assert not (tmp_path / "never").exists()


def test_manager_of_another_host(call: Callable[..., Caller], other_host: Path) -> None:
    """After a failover the manager of another host gets what is there: the run, and a receipt to acknowledge."""
    first = call()
    pid = first.launch("sleep", "1000")
    second = call(keys=other_host)
    second.try_to_launch("true", name=first.name)
    assert second.report().state is m.Phase.WAITING
    first.report()
    assert "manager n1" in second.await_(m.Refused).text
    first.close()
    assert second.resume(first, output=False).pid == pid
    assert first.name in [run.name for run in second.ask(m.Runs, m.Status).runs]
    second.ask(m.Done, m.Stop)
    receipt = second.await_(m.Exited).receipt
    third = call()
    assert third.resume(first, output=False).attached
    assert third.ended().receipt == receipt


def test_launch_again_and_again(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A launch whose answer is lost is repeated with the same run id: the command is executed once."""
    name, run_id, book = "again", str(uuid.uuid4()), tmp_path / "book"
    command = ("sh", "-c", 'echo start >> "$0"; exec sleep 1000', str(book))
    for polls in range(12):
        caller = call(instance="one")
        caller.try_to_launch(*command, name=name, run_id=run_id)
        for _ in range(polls % 4):
            caller.say(m.Poll)
        caller.close()
    last = call(instance="one")
    last.try_to_launch(*command, name=name, run_id=run_id)
    assert last.await_(m.Launched).run_id == run_id
    until(book.exists, "it runs")
    assert last.stop().outcome == Signaled(15)
    assert book.read_text() == "start\n"


@pytest.mark.parametrize("on_existing", [OnExisting.REPLACE, OnExisting.ATTACH])
def test_many_newcomers(call: Callable[..., Caller], on_existing: OnExisting) -> None:
    """Of many that want a name at once one gets it, and every other one is told no."""
    callers = [call() for _ in range(12)]
    for caller in callers:
        caller.try_to_launch("sleep", "1000", name=f"many-{on_existing.value}", on_existing=on_existing)
    answers: dict[Caller, m.Message] = {}

    def everybody() -> bool:
        for caller in callers:
            caller.say(m.Poll)
            while not isinstance(message := caller.hear(), m.Report):
                assert isinstance(message, m.Launched | m.Refused)
                assert answers.setdefault(caller, message) is message
        return len(answers) == len(callers)

    until(everybody, "everybody has an answer")
    codes = sorted(getattr(answer, "code", "launched") for answer in answers.values())
    assert codes == ["launched"] + ["name-taken"] * 11
