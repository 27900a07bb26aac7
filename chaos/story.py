"""What happened in a campaign, as each witness tells it: the words in which the checker judges.

`Instance` is what the application's own book says, `Manager` what a manager said, `Receipt` what a guest's server kept,
`Server` when one was seen alive, `Fault` what we did. All times are seconds of the one monotonic clock that host and
guests share, but for those called wall-clock times, which the programs tell. The invariant: nothing here is inferred;
each record holds what its witness has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FOREVER = float("inf")


@dataclass(frozen=True)
class Instance:
    """One process that the application was started as, by its book; `beats` are of all its processes."""

    guest: str
    name: str
    instance: str
    run_id: str
    boot_id: str
    started: float
    wall_offset: float  # what to subtract from a wall-clock time of this guest
    beats: tuple[tuple[float, str], ...] = ()
    end: tuple[str, int] | None = None  # exit or signal, and its number, that it was about to end with
    ended: float | None = None

    @property
    def last(self) -> float:
        """When one of its processes was last alive."""
        return max((self.started, *(time for time, _ in self.beats), self.ended or 0.0))

    @property
    def last_main(self) -> float:
        """When its main process was last alive."""
        return max((self.started, *(time for time, role in self.beats if role == "main"), self.ended or 0.0))


@dataclass(frozen=True)
class Told:
    """An outcome, as a manager or a receipt tells it: `way` is exited, signaled or unknown."""

    way: str
    number: int = -1
    reason: str = ""
    forced: bool = False
    ended: float | None = None  # wall-clock time at which the main process ended
    heard: float | None = None  # wall-clock time at which the manager was told


@dataclass(frozen=True)
class Manager:
    """One manager from start to end; `code` is as Popen tells it, `cause` and the rest are of its result."""

    number: int
    guest: str
    name: str
    run_id: str
    began: float
    ended: float = FOREVER
    code: int | None = None
    cause: str = ""
    told: Told | None = None
    exit_code: int | None = None  # as the result has it
    launched: bool = False
    signals: tuple[tuple[float, int], ...] = ()  # that we sent it
    last_line: str = ""
    text: str = ""  # the last line, as the result has it
    defect: str = ""
    overdue: bool = False  # it did not end when it had to, and was killed by us
    refusal: str = ""
    may_attach: bool = False  # it takes another run of its name for its own
    told_run: str = ""  # the run that its result is about


@dataclass(frozen=True)
class Receipt:
    """What a server's state folder holds of a run; `told` is None for one that has not ended there."""

    guest: str
    run_id: str
    told: Told | None = None
    damage: str = ""


@dataclass(frozen=True)
class Server:
    """One process of a server, from when it was first to when it was last seen; `ended` is not set if it was alive."""

    guest: str
    seen: float
    ended: float | None = None


@dataclass(frozen=True)
class Fault:
    """What we did, to whom (a run id or nothing), from when to when."""

    kind: str
    guest: str
    begun: float
    ended: float
    run_id: str = ""
    number: int = 0


@dataclass(frozen=True)
class Story:
    """All that is known of a campaign."""

    instances: tuple[Instance, ...] = ()
    managers: tuple[Manager, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    servers: tuple[Server, ...] = ()
    faults: tuple[Fault, ...] = ()
    calm: float = FOREVER  # from then on no manager was left, and no application was to be
    server_defects: tuple[tuple[str, str], ...] = ()  # the guest, and what its log says
    stop_timeout: float = 1.0  # from the stop signal to SIGKILL
    patience: float = 10.0  # how long a fault may be felt when it is over: time-outs, back-offs and a slow machine
    tells_strangers: bool = True  # the kernel tells how a process ended that is not the server's child


@dataclass(frozen=True, order=True)
class Violation:
    """One promise that was broken, by its kind, and what shows it."""

    kind: str
    text: str


@dataclass
class Judgement:
    """What the checker found."""

    violations: list[Violation] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
