"""The judge: holds what was told against what the applications wrote themselves. Pure; knows nothing of cmapp's code.

What it takes for granted is little: an application's `end` line is followed by that end or by SIGKILL, and all clocks
are one. The invariant: a violation is reported only where no order of events that agrees with the witnesses is in
order, so each of them is a defect; what a fault of ours may explain is counted and not reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.excuses import (
    DEADLY,
    LINGER,
    SLACK,
    UNWELL,
    cause_of_death,
    felt,
    hindered,
    may_be_unknown,
    refusable,
)
from chaos.story import FOREVER, Judgement, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.story import Instance, Manager, Story, Told

KILL, TERM = 9, 15
DISMISSAL = 10
DETACHED = 0
UNKNOWN, REFUSED, UNREACHABLE, FAILED = 121, 122, 123, 125
SIGNALED = 128
WAYS = {"exit": "exited", "signal": "signaled"}
LATE = 3.0  # seconds in which an end is told on a machine that is busy, and nothing else is wrong


def judge(story: Story) -> Judgement:
    """Return what is wrong with the story, and how its managers ended."""
    runs = _by_run(story.instances)
    violations = [
        *_overlaps(story.instances),
        *_twice(runs),
        *_wrong(story, runs),
        *_contradictions(story),
        *_lost(story, runs),
        *_survivors(story, runs),
        *_late(story, runs),
        *_managers(story),
        *_deaths(story),
    ]
    return Judgement(sorted(set(violations)), dict(Counter(_kind(manager) for manager in story.managers)))


def _by_run(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    runs = defaultdict(list)
    for instance in instances:
        runs[instance.run_id].append(instance)
    return runs


def _overlaps(instances: Iterable[Instance]) -> Iterator[Violation]:
    """P1: of one name in one boot of one guest, nothing lives when the next begins."""
    lives = defaultdict(list)
    for instance in instances:
        lives[instance.guest, instance.name, instance.boot_id].append(instance)
    for (guest, name, _), lived in lives.items():
        lived.sort(key=lambda instance: instance.started)
        for place, later in enumerate(lived):
            longest = max(lived[:place], key=lambda earlier: earlier.last, default=later)
            if longest is not later and longest.last > later.started:
                by = longest.last - later.started
                text = f"{name} on {guest}: {longest.run_id} lived {by:.3f} s beside {later.run_id}"
                yield Violation("overlap", text)


def _twice(runs: dict[str, list[Instance]]) -> Iterator[Violation]:
    """A run id is launched once, whatever is repeated."""
    for run_id, instances in runs.items():
        if len(instances) > 1:
            boots = len({instance.boot_id for instance in instances})
            text = f"{instances[0].name} on {instances[0].guest}: {run_id} was started {len(instances)} times"
            yield Violation("twice", f"{text} in {boots} boots")


def _wrong(story: Story, runs: dict[str, list[Instance]]) -> Iterator[Violation]:
    """P2, P3: what is told of a run is what its book says, and nothing is told that did not happen."""
    killed = defaultdict(set)
    for fault in story.faults:
        if fault.kind == "app-kill":
            killed[fault.run_id].add(fault.number)
    for who, run_id, told in _tellings(story):
        instances = runs.get(run_id, [])
        if told.way == "unknown":
            if not may_be_unknown(story, instances, run_id):
                yield Violation(
                    "lost", f"{who}: the outcome of {run_id} is told to be unknown, and nothing explains it"
                )
        elif not instances:
            if not (told.way == "signaled" and (told.reason != "itself" or told.number in killed[run_id])):
                yield Violation("invented", f"{who}: {_words(told)} for {run_id}, which has no book")
        elif not any(_fits(told, instance, killed[run_id]) for instance in instances):
            books = ", ".join(_end_words(instance) for instance in instances)
            yield Violation("altered", f"{who}: {_words(told)} ({told.reason}) for {run_id}, whose book says: {books}")


def _tellings(story: Story) -> Iterator[tuple[str, str, Told]]:
    for manager in story.managers:
        if manager.told is not None:
            yield f"manager {manager.number}", manager.told_run or manager.run_id, manager.told
    for receipt in story.receipts:
        if receipt.told is not None:
            yield f"receipt on {receipt.guest}", receipt.run_id, receipt.told


def _fits(told: Told, instance: Instance, killed: set[int]) -> bool:
    """Tell whether an instance with that book can have ended as told."""
    deadly = set(killed)
    if told.forced:
        deadly.add(KILL)
    if instance.end is not None:
        way, number = instance.end
        if (told.way, told.number) == (WAYS[way], number):
            return True
        return told.way == "signaled" and told.number == KILL and KILL in deadly
    if told.reason != "itself":
        deadly.add(TERM)  # some applications do not catch it, none of them before it has begun
    return told.way == "signaled" and told.number in deadly


def _contradictions(story: Story) -> Iterator[Violation]:
    """P2: one run has one outcome, whoever tells it, and however often."""
    told: dict[str, dict[tuple[str, int], str]] = defaultdict(dict)
    for who, run_id, telling in _tellings(story):
        told[run_id].setdefault((telling.way, telling.number), who)
    for run_id, tellings in told.items():
        if len(tellings) > 1:
            words = "; ".join(f"{who}: {way} {number}" for (way, number), who in tellings.items())
            yield Violation("doubled", f"{run_id} has ended in different ways: {words}")
    for receipt in story.receipts:
        if receipt.damage:
            yield Violation("damaged", f"{receipt.guest}: {receipt.run_id}: {receipt.damage}")


def _lost(story: Story, runs: dict[str, list[Instance]]) -> Iterator[Violation]:
    """P2: every run that ended was told, or is kept to be told."""
    known = {run_id for _, run_id, _ in _tellings(story)}
    for run_id, instances in runs.items():
        first = instances[0]
        if run_id not in known:
            text = f"{first.name} on {first.guest}: nobody was told how {run_id} ended, and there is no receipt"
            yield Violation("lost", text)


def _survivors(story: Story, runs: dict[str, list[Instance]]) -> Iterator[Violation]:
    """P5: nothing of a run is alive when its stop is told, nor for long after its main process ended."""
    for who, run_id, told in _tellings(story):
        if told.ended is None or told.way == "unknown":
            continue
        for instance in runs.get(run_id, []):
            ended, heard = told.ended - instance.wall_offset, (told.heard or FOREVER) - instance.wall_offset
            limit = ended + story.stop_timeout + LINGER + hindered(story, instance.guest, ended)
            if told.reason != "itself":
                limit = min(limit, heard + SLACK)
            if instance.last > limit:
                since = f"{instance.last - min(ended, heard):.3f} s after its end ({told.reason}) as {who} has it"
                yield Violation("survivor", f"{instance.name} on {instance.guest}: {run_id} was alive {since}")
    for instance in story.instances:
        if instance.last > story.calm + SLACK:
            text = f"{instance.name} on {instance.guest}: {instance.run_id} was alive when all had ended"
            yield Violation("survivor", text)


def _late(story: Story, runs: dict[str, list[Instance]]) -> Iterator[Violation]:
    """P8: where nothing hinders it, an end is told at once."""
    for manager in story.managers:
        for instance in runs.get(manager.run_id, []):
            if manager.told is None or instance.ended is None or manager.told.ended is None:
                continue
            since = max(instance.ended, manager.began)
            hindered = felt(story, replace(manager, began=since), UNWELL) or any(
                since - story.patience <= when <= manager.ended for when, _ in manager.signals
            )
            if manager.ended > since + LATE and not hindered:
                text = f"manager {manager.number} ended {manager.ended - since:.3f} s after {instance.run_id} had"
                yield Violation("late", text)


def _managers(story: Story) -> Iterator[Violation]:
    """P3, P9: a manager ends with the code that its outcome means, and says nothing that no fault explains."""
    for manager in story.managers:
        who = f"manager {manager.number} of {manager.name} on {manager.guest}"
        if manager.defect:
            yield Violation("defect", f"{who}: {manager.defect}")
        if manager.overdue:
            yield Violation("stuck", f"{who} did not end")
        elif manager.code is None or manager.code < 0:
            if manager.code is None or -manager.code not in {number for _, number in manager.signals}:
                yield Violation("death", f"{who} died of signal {-(manager.code or 0)}, which we did not send")
        else:
            yield from (Violation(kind, f"{who}: {text}") for kind, text in _ending(story, manager))


def _ending(story: Story, manager: Manager) -> Iterator[tuple[str, str]]:
    if manager.exit_code is None:
        yield "lost", f"it exited with {manager.code} and left no result"
        return
    if manager.code != manager.exit_code:
        yield "altered", f"it exited with {manager.code}, and its result says {manager.exit_code}"
    if manager.text not in manager.last_line:
        yield "altered", f"its log ends with {manager.last_line!r}, and its result says {manager.text!r}"
    if manager.told_run not in ("", manager.run_id) and not manager.may_attach:
        yield "altered", f"its result is of {manager.told_run}, and it launched {manager.run_id}"
    told = manager.told
    if told is not None:
        due = {"exited": told.number, "signaled": SIGNALED + told.number}.get(told.way, UNKNOWN)
        if manager.exit_code != due:
            yield "altered", f"its result says {_words(told)} and the exit code {manager.exit_code}"
        return
    numbers = {number for _, number in manager.signals}
    explained = {
        UNREACHABLE: felt(story, manager, UNWELL),
        REFUSED: refusable(story, manager),
        DETACHED: manager.cause == "detached" and DISMISSAL in numbers,
        FAILED: bool(manager.signals) and not manager.launched,
    }
    if not explained.get(manager.exit_code, False):
        yield "unexplained", f"it exited with {manager.exit_code}, and nothing explains it: {manager.text}"


def _deaths(story: Story) -> Iterator[Violation]:
    """No server ends by itself, and none tells of a defect of its own."""
    for guest, text in story.server_defects:
        yield Violation("defect", f"the server on {guest}: {text}")
    guests = {server.guest for server in story.servers}
    for guest in sorted(guests):
        causes = [fault for fault in story.faults if fault.guest == guest and fault.kind in DEADLY]
        for server in sorted((one for one in story.servers if one.guest == guest), key=lambda one: one.seen):
            if server.ended is None:
                continue
            cause = cause_of_death(server, causes, story)
            if cause is None:
                yield Violation("death", f"the server on {guest} ended at {server.ended:.3f}, which we did not ask for")
            else:
                causes.remove(cause)


def _kind(manager: Manager) -> str:
    if manager.code is not None and manager.code < 0:
        return "manager killed"
    if manager.told is not None:
        return f"{manager.told.way} ({manager.told.reason})" if manager.told.reason else manager.told.way
    return manager.cause or "nothing"


def _words(told: Told) -> str:
    return f"{told.way} {told.number}" + (", forced" if told.forced else "")


def _end_words(instance: Instance) -> str:
    return "no end" if instance.end is None else f"{instance.end[0]} {instance.end[1]}"
