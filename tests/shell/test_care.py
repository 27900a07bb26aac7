"""Whether a run is ready, what it says itself, and how it is asked to stop: real commands and real senders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core.messages import Launch, Refusal
from cmapp.core.readiness import parse_ready
from cmapp.core.rules import Kind, Probe, ReadyRules, StopRules
from cmapp.errors import RunError
from cmapp.guest.health import check
from tests.shell.care_bed import CareBed, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


HANGS = ("sleep", "60")
NOTIFY = ReadyRules(probe=Probe.NOTIFY)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[CareBed]:
    """Return a bed, whose processes are gone at the end."""
    bed = CareBed(tmp_path)
    yield bed
    for sender in bed.senders:
        sender.close()


# ---- readiness ---------------------------------------------------------------------------------------------


def test_ready_by_command(bed: CareBed) -> None:
    """Health begins when the run is ready; until then it is known why it is not."""

    async def main() -> None:
        rules = ReadyRules(probe=Probe.COMMAND, command=("sh", "-c", f"echo wait; test -e {bed.folder}/up"))
        care = bed.care(ready=rules, health=bed.check("true"))
        assert care.trouble == ""
        care.launched()
        await until(lambda: care.trouble == "the readiness command exited with code 1: wait")
        assert care.health == ""
        care.hold(True)
        (bed.folder / "up").touch()
        await until(lambda: not bed.commands.running)
        await bed.quiet()
        care.hold(False)
        await bed.tells(("ready", ""))
        await until(lambda: care.health == "ok")
        await bed.end()

    run(main())


def test_trouble_is_known_after_the_end(bed: CareBed) -> None:
    """What the last try met is the reason of a run that was stopped for not being ready."""

    async def main() -> None:
        care = bed.care(ready=parse_ready("tcp:1"))
        care.launched()
        await until(lambda: care.trouble)
        care.rest()
        assert care.trouble == "127.0.0.1:1: Connection refused"
        await bed.end()

    run(main())


@pytest.mark.parametrize("known", ["as launched", "later"])
def test_ready_already(bed: CareBed, known: str) -> None:
    """A run that an earlier server found ready is not asked again, and told nobody."""

    async def main() -> None:
        care = bed.care(ready=parse_ready("command:false"), health=bed.check("true"))
        care.launched(ready=known == "as launched")
        if known == "later":
            care.ready()
        await until(lambda: care.health == "ok")
        assert not bed.told
        await bed.end()

    run(main())


def test_readiness_that_cannot_be_asked() -> None:
    """A launch by another client is refused, not looked up."""
    run_id = "01234567-89ab-cdef-0123-456789abcdef"
    with pytest.raises(RunError) as refusal:
        check(Launch(1, "web", run_id, ("web",), ready=ReadyRules(probe=Probe.TCP, target="vm1:80")))
    assert refusal.value.code == Refusal.UNSUPPORTED


# ---- what the application says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launch", "env"),
    [
        ({}, {}),
        ({"ready": parse_ready("tcp:80")}, {}),
        ({"ready": NOTIFY}, {"NOTIFY_SOCKET": "/n"}),
        ({"kind": Kind.NOTIFY}, {"NOTIFY_SOCKET": "/n"}),
        ({"watchdog": 1.5}, {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1500000"}),
        ({"watchdog": 0.0}, {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1"}),
    ],
    ids=["nothing", "tcp", "ready", "kind", "watchdog", "no time"],
)
def test_environment(bed: CareBed, launch: dict[str, Any], env: dict[str, str]) -> None:
    """The application gets the socket where it is to say something, and only there is one made."""

    async def main() -> None:
        care = bed.care(**launch)
        assert care.environment("/n") == env
        care.listen(bed.path)
        assert (care.descriptor is not None) == care.listens == bool(env)
        assert os.path.exists(bed.path) == bool(env)  # noqa: ASYNC240, PTH110 - our loop may wait
        await bed.end()
        assert not os.path.exists(bed.path)  # noqa: ASYNC240, PTH110

    run(main())


def test_what_the_application_says(bed: CareBed) -> None:
    """Each thing is told, readiness once, a status when it changes, and health begins."""

    async def main() -> None:
        care = bed.care(ready=NOTIFY, kind=Kind.NOTIFY, watchdog=5.0, health=bed.check("true"))
        care.listen(bed.path)
        app = bed.sender()
        app.send(f"STATUS=starting\nMAINPID={app.pid}".encode())
        app.sent()
        await bed.quiet(0.1)  # nothing is heard before "launched" was told
        care.launched()
        await bed.tells(("main", str(app.pid)), ("status", "starting"))
        assert (care.last_status, care.trouble) == ("starting", "it did not say READY=1")
        app.send(b"READY=1\nWATCHDOG=1\nSTATUS=starting")
        await bed.tells(("ready", ""), ("beat", ""))
        await until(lambda: care.health == "ok")
        for message in (b"READY=1", b"WATCHDOG=1", b"STATUS=serving", b"STOPPING=1\nSTATUS=bye", b"STOPPING=1"):
            app.send(message)
        await bed.tells(("beat", ""), ("status", "serving"), ("status", "bye"), ("stopping", ""))
        app.send(b"WATCHDOG=trigger")
        await bed.tells(("unhealthy", "it said so itself, by WATCHDOG=trigger"))
        care.hold(True)
        app.send(b"WATCHDOG=trigger")
        app.send(b"STATUS=held")
        await bed.tells(("status", "held"))
        await bed.end()

    run(main())


def test_what_is_not_asked_for(bed: CareBed) -> None:
    """An application that only has a watchdog neither names its main process nor says that it is ready."""

    async def main() -> None:
        care = bed.care(watchdog=5.0)
        care.listen(bed.path)
        care.launched()
        app = bed.sender()
        app.send(f"MAINPID={app.pid}\nREADY=1\nWATCHDOG=1".encode())
        await bed.tells(("beat", ""))
        await bed.end()

    run(main())


@pytest.mark.parametrize("rules", [None, NOTIFY], ids=["no rules", "notify"])
def test_application_that_notifies(bed: CareBed, rules: ReadyRules | None) -> None:
    """One of the kind `notify` says itself when it is ready, whether or not the launch has rules for that."""

    async def main() -> None:
        care = bed.care(ready=rules, kind=Kind.NOTIFY, health=bed.check("true"))
        care.listen(bed.path)
        care.launched()
        await bed.quiet(0.3)
        assert (care.health, care.trouble) == ("", "it did not say READY=1")
        bed.sender().send(b"READY=1")
        await bed.tells(("ready", ""))
        await until(lambda: care.health == "ok")
        await bed.end()

    run(main())


def test_notifying_application_that_is_asked(bed: CareBed) -> None:
    """With another probe, READY=1 is not taken for it."""

    async def main() -> None:
        care = bed.care(ready=parse_ready("tcp:1"), kind=Kind.NOTIFY)
        care.listen(bed.path)
        care.launched()
        bed.sender().send(b"READY=1\nSTATUS=up")
        await bed.tells(("status", "up"))
        await bed.quiet(0.3)
        await bed.end()

    run(main())


def test_ready_is_heard_while_held(bed: CareBed) -> None:
    """What the application says is no judgement of ours."""

    async def main() -> None:
        care = bed.care(ready=NOTIFY)
        care.listen(bed.path)
        care.launched()
        care.hold(True)
        bed.sender().send(b"READY=1")
        await bed.tells(("ready", ""))
        await bed.end()

    run(main())


# ---- the stop command --------------------------------------------------------------------------------------


def test_stop_command(bed: CareBed) -> None:
    """It knows the main process, and checks are over when it runs."""

    async def main() -> None:
        ended: list[str] = []
        rules = StopRules(command=("sh", "-c", f"echo $MAINPID >{bed.folder}/stopped"))
        care = bed.care(stop=rules, health=bed.check("false", interval=0.1))
        care.launched()
        care.stop(4711, ended.append)
        await until(lambda: ended)
        assert ended == [""]
        assert (bed.folder / "stopped").read_text() == "4711\n"
        await bed.quiet()
        await bed.end()

    run(main())


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ((), ""),
        (("sh", "-c", "echo denied; exit 7"), "the stop command exited with code 7: denied"),
        (("/nowhere/stop",), "the stop command could not be run: there is no command /nowhere/stop"),
        (HANGS, "the stop command gave no answer within 200 ms"),
    ],
    ids=["none", "fails", "not there", "hangs"],
)
def test_stop_goes_on(bed: CareBed, command: tuple[str, ...], trouble: str) -> None:
    """Whatever is wrong with the stop command, the stop goes on by the signal, in half of its time."""

    async def main() -> None:
        ended: list[str] = []
        care = bed.care(stop=StopRules(command=command, timeout=0.4 if command == HANGS else 60.0))
        care.launched()
        care.stop(1, ended.append)
        await until(lambda: ended)
        await until(lambda: not bed.commands.running)
        assert ended == [trouble]
        await bed.end()

    run(main())


def test_closed_while_the_stop_command_runs(bed: CareBed) -> None:
    """When nothing is left of the run, its commands are gone too, and nobody is told."""

    async def main() -> None:
        ended: list[str] = []
        care = bed.care(stop=StopRules(command=("sleep", "60")))
        care.launched()
        care.stop(1, ended.append)
        await until(lambda: bed.commands.running)
        await bed.end()
        assert not ended

    run(main())
