"""Whether a run is healthy is asked by real commands, and held against it only when they can tell."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core.duration import LATE
from cmapp.core.messages import Refusal
from cmapp.core.outcome import Unknown
from cmapp.core.readiness import parse_ready
from cmapp.core.rules import HealthRules
from cmapp.errors import RunError
from tests.shell.care_bed import RUN_ID, CareBed, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cmapp.core.outcome import Outcome
    from tests.shell.care_bed import Done


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[CareBed]:
    """Return a bed, whose processes are gone at the end."""
    bed = CareBed(tmp_path)
    yield bed
    for sender in bed.senders:
        sender.close()


def test_unhealthy(bed: CareBed) -> None:
    """A command that fails as often as it may, and what it said last is the reason."""

    async def main() -> None:
        care = bed.care(health=bed.check("echo trying; echo could not connect; exit 2"))
        assert care.health == ""
        care.launched()
        assert care.health == "not checked yet"
        await until(lambda: care.health == "1 of 3 checks failed: exited with code 2: could not connect")
        await bed.tells(
            ("unhealthy", "the health command failed 3 times in a row: exited with code 2: could not connect")
        )
        await bed.quiet()
        await bed.end()

    run(main())


def test_healthy(bed: CareBed) -> None:
    """A check that succeeds now and then keeps the run."""

    async def main() -> None:
        care = bed.care(health=bed.check("echo >>tries; test $(($(wc -l <tries) % 3)) -eq 0"))
        care.launched()
        await until(lambda: len(bed.commands.env) >= 8)
        assert not bed.told
        await until(lambda: care.health == "ok")
        await bed.end()

    run(main())


def test_hung_check(bed: CareBed) -> None:
    """A health command that hangs is killed and counts; there are never two."""

    async def main() -> None:
        bed.care(health=bed.check("sleep 60", timeout=0.2, retries=2)).launched()
        await bed.tells(("unhealthy", "the health command failed 2 times in a row: gave no answer within 200 ms"))
        await until(lambda: not bed.commands.running)
        assert (len(bed.commands.env), bed.commands.most) == (2, 1)
        await bed.end()

    run(main())


def test_check_that_cannot_be_run(bed: CareBed, caplog: pytest.LogCaptureFixture) -> None:
    """Not to be able to tell is not a failure: the report says so, and the log once."""

    async def main() -> None:
        care = bed.care(health=HealthRules(command=("/nowhere/check",), interval=0.1, retries=1))
        care.launched()
        await until(lambda: len(bed.commands.env) >= 3)
        assert care.health == "not checked: could not be run: there is no command /nowhere/check"
        assert not bed.told
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert told == [f"app (run {RUN_ID}): its health is {care.health}"]
        await bed.end()

    run(main())


class Unable:
    """A guest that has no room for commands, or loses sight of them, at once."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, argv: tuple[str, ...], env: Mapping[str, str], done: Done) -> Any:
        """Refuse, or tell that nothing is known."""
        del argv, env
        self.asked += 1
        if self.asked % 2:
            raise RunError(Refusal.RESOURCES, "the guest has no room for it: Cannot allocate memory")
        outcome: Outcome = Unknown("somebody else took its status")
        done(outcome, "")


def test_guest_without_room(bed: CareBed) -> None:
    """What the guest cannot do is not held against the application, neither its health nor its readiness."""

    async def main() -> None:
        unable = Unable()
        healthy = bed.care(unable, health=bed.check("true", retries=1))
        healthy.launched()
        starting = bed.care(unable, ready=parse_ready("command:true"))
        starting.launched()
        await until(lambda: unable.asked >= 6)
        await until(lambda: "Cannot allocate memory" in healthy.health)
        await until(lambda: "ended, but how is not known" in starting.trouble)
        assert not bed.told
        await bed.end()

    run(main())


def test_loop_that_stood_still(bed: CareBed) -> None:
    """A command that failed across a pause of ours is asked again, and not counted."""

    async def main() -> None:
        care = bed.care(
            health=bed.check("echo >>tries; sleep 0.1; test $(wc -l <tries) -gt 1", interval=0.05, retries=1)
        )
        care.launched()
        await until(lambda: bed.commands.running)
        time.sleep(LATE + 1.5)  # noqa: ASYNC251 - the pause
        await until(lambda: care.health == "ok")
        assert not bed.told
        await bed.end()

    run(main())


def test_hold(bed: CareBed) -> None:
    """While the run is held nothing runs, and what is running is killed; then it goes on."""

    async def main() -> None:
        care = bed.care(health=bed.check("sleep 60", retries=1))
        care.launched()
        await until(lambda: bed.commands.running)
        care.hold(True)
        await until(lambda: not bed.commands.running)
        await bed.quiet()
        assert care.health == "not checked yet"
        care.hold(False)
        await until(lambda: bed.commands.running)
        assert not bed.told
        await bed.end()

    run(main())


def test_rest(bed: CareBed) -> None:
    """Nothing is asked of a run that is being stopped."""

    async def main() -> None:
        care = bed.care(health=bed.check("echo no; exit 1", retries=100))
        care.launched()
        await until(lambda: care.health.startswith("2 of 100"))
        care.rest()
        await until(lambda: not bed.commands.running)
        await bed.quiet()
        assert care.health.startswith("2 of 100")
        await bed.end()

    run(main())


def test_any_order(bed: CareBed) -> None:
    """Whatever becomes true first, nothing is asked once the run is at rest, or closed."""

    async def main() -> None:
        for order in itertools.permutations(["launched", "hold", "ready", "rest"]):
            care = bed.care(health=bed.check("true"), ready=parse_ready("command:true"))
            for step in order:
                getattr(care, step)(*[True] if step == "hold" else [])
        await bed.quiet(0.3)
        await bed.end()
        for care in bed.cares:
            care.hold(False)
            care.launched()
            care.stop(1, lambda _: None)
        await bed.quiet(0.3)

    run(main())
