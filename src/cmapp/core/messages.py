"""The protocol's messages: each is a class, its `word` is its "type" on the wire, its fields are its keys.

docs/protocol.md is the specification; a test holds the two against each other. A request has an `id`, a reply
repeats it, a push has none. A key that is absent means the field's default, so lines stay small.
"""

from __future__ import annotations

import enum

from cmapp.core import checks
from cmapp.core.outcome import Receipt
from cmapp.core.record import Record, field
from cmapp.core.rules import HealthRules, Kind, OnExisting, OrphanRules, ReadyRules, StopRules
from cmapp.core.unitname import unit as unit_name

VERSIONS = (1,)
OUTPUT_CHUNK = checks.BLOB_LIMIT  # bytes of output in one message


class Phase(enum.Enum):
    """The state of a run as a report tells it."""

    WAITING = "waiting"
    STARTING = "starting"
    READYING = "readying"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Stream(enum.Enum):
    """Where output was written to."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Message(Record):
    """Anything that is said on a link."""


# ---- manager to server -------------------------------------------------------------------------------------


class Request(Message):
    """What a manager asks; every request is answered once, under its `id`."""

    id: int = field(checks.count)


class Hello(Request):
    """The first line: the versions that the manager speaks, and when the server may take it for lost.

    `silence` is that many seconds without a byte from the manager; None leaves it to the transport. `instance`
    names this process of the manager: its next connection takes the place of its last at once.
    """

    word = "hello"
    versions: tuple[int, ...] = field(checks.many(checks.count, least=1))
    software: str = field(checks.text, default="")
    node: str = field(checks.text, default="")
    silence: float | None = field(checks.optional(checks.seconds), default=None)
    instance: str = field(checks.text, default="")


class Launch(Request):
    """Start `argv` as run `run_id` of the application `name`, or have systemd start `unit`.

    Without either, start what the guest defines as that application. Of a unit, its own file says what is between
    `argv` and `pid_file`, its stop signal and its watchdog: a launch that says so too is refused.

    `env` is the whole environment, `umask` the process's, `cwd` is entered as `user`. A relative `argv[0]`
    without a slash is looked up along PATH of `env`, or the server's own search path. `limits` are soft and
    hard, in the units of setrlimit(2), or of the cgroup for `memory` and `pids`. `watchdog` is the longest time
    between two WATCHDOG=1 of the application.

    `run_id` makes it idempotent: if that run is there already, or has ended, the manager is attached to it, and
    with `resume` it is not started in any case. Output is told from the offsets `stdout_from` and `stderr_from`.
    A run of the same name with another run id is dealt with by `on_existing` once its manager is gone, or at once
    if `takeover`.
    """

    word = "launch"
    name: str = field(checks.name)
    run_id: str = field(checks.uuid)
    argv: tuple[str, ...] = field(checks.many(checks.text), default=())
    user: str | None = field(checks.optional(checks.text), default=None)
    group: str | None = field(checks.optional(checks.text), default=None)
    cwd: str = field(checks.text, default="/")
    env: dict[str, str] = field(checks.environment, default={})
    umask: int = field(checks.within(0, 0o777), default=0o022)
    limits: dict[str, tuple[int, int]] = field(checks.limits, default={})
    kind: Kind = field(checks.one_of(Kind), default=Kind.SIMPLE)
    pid_file: str = field(checks.text, default="")
    stop: StopRules = field(checks.record(StopRules), default=StopRules())
    orphan: OrphanRules = field(checks.record(OrphanRules), default=OrphanRules())
    ready: ReadyRules | None = field(checks.optional(checks.record(ReadyRules)), default=None)
    health: HealthRules | None = field(checks.optional(checks.record(HealthRules)), default=None)
    watchdog: float | None = field(checks.optional(checks.seconds), default=None)
    on_existing: OnExisting = field(checks.one_of(OnExisting), default=OnExisting.REPLACE)
    takeover: bool = field(checks.flag, default=False)
    resume: bool = field(checks.flag, default=False)
    output: bool = field(checks.flag, default=False)
    stdout_from: int = field(checks.count, default=0)
    stderr_from: int = field(checks.count, default=0)
    unit: str = field(unit_name, default="")


class Poll(Request):
    """Ask for a report of the run."""

    word = "poll"


class Stop(Request):
    """Stop the run by its stop rules, or by SIGKILL at once if `kill`."""

    word = "stop"
    kill: bool = field(checks.flag, default=False)


class Detach(Request):
    """Leave the run to a later manager."""

    word = "detach"


class Hold(Request):
    """Let the run of the application `name` be, whatever its checks say; or, with `on` false, no longer."""

    word = "hold"
    name: str = field(checks.name)
    on: bool = field(checks.flag, default=True)


class Acknowledge(Request):
    """The outcome is recorded: the receipt of `run_id` may be forgotten."""

    word = "acknowledge"
    run_id: str = field(checks.uuid)


class Status(Request):
    """Ask for reports of all runs that this manager may see, those whose name comes after `after`."""

    word = "status"
    after: str = field(checks.text, default="")


class Tail(Request):
    """Ask for the last output that the server kept of `stream`, at most `limit` bytes."""

    word = "tail"
    stream: Stream = field(checks.one_of(Stream), default=Stream.STDERR)
    limit: int = field(checks.within(0, OUTPUT_CHUNK), default=OUTPUT_CHUNK)


# ---- server to manager -------------------------------------------------------------------------------------


class Welcome(Message):
    """The answer to `hello`: the version to speak from here, and who answers."""

    word = "welcome"
    id: int = field(checks.count)
    version: int = field(checks.count)
    software: str = field(checks.text, default="")
    guest: str = field(checks.text, default="")
    boot_id: str = field(checks.text, default="")
    features: tuple[str, ...] = field(checks.many(checks.text), default=())


class Launched(Message):
    """The answer to `launch`: the command runs as `pid`; `attached` tells that it already did, or has.

    `run_id` is another than was asked for when `on_existing` attached to the run that was there.
    """

    word = "launched"
    id: int = field(checks.count)
    run_id: str = field(checks.uuid)
    pid: int = field(checks.count)
    attached: bool = field(checks.flag, default=False)


class Ready(Message):
    """A push: the application says that it serves."""

    word = "ready"
    run_id: str = field(checks.uuid)


class RunReport(Record):
    """How a run is: seconds up, processor seconds used, resident bytes and processes of the whole tree.

    `ready` and `health` are there where the launch asked for them, `status` where the application tells one;
    `orphaned` is for how many seconds it has had no manager.
    """

    name: str = field(checks.name)
    run_id: str = field(checks.uuid)
    state: Phase = field(checks.one_of(Phase))
    pid: int | None = field(checks.optional(checks.count), default=None)
    uptime: float = field(checks.seconds, default=0.0)
    cpu: float = field(checks.seconds, default=0.0)
    memory: int = field(checks.count, default=0)
    processes: int = field(checks.count, default=0)
    held: bool = field(checks.flag, default=False)
    ready: bool | None = field(checks.optional(checks.flag), default=None)
    health: str = field(checks.text, default="")
    status: str = field(checks.text, default="")
    orphaned: float | None = field(checks.optional(checks.seconds), default=None)


class Report(Message):
    """The answer to `poll`."""

    word = "report"
    id: int = field(checks.count)
    run: RunReport = field(checks.record(RunReport))


class Output(Message):
    """Output, in base64 on the wire: a push, or the answer to `tail`.

    `offset` counts the stream's bytes before `data`; `dropped` says how many of them, right before it, were
    not sent because they came faster than they could be taken.
    """

    word = "output"
    stream: Stream = field(checks.one_of(Stream))
    offset: int = field(checks.count)
    data: bytes = field(checks.blob)
    dropped: int = field(checks.count, default=0)
    id: int | None = field(checks.optional(checks.count), default=None)


class Exited(Message):
    """A push: the run is over, and this is its receipt."""

    word = "exited"
    receipt: Receipt = field(checks.record(Receipt))


class Done(Message):
    """The answer to `stop`, `detach`, `hold` and `acknowledge`: it is being done, or is done already."""

    word = "done"
    id: int = field(checks.count)


class Runs(Message):
    """The answer to `status`, in the order of their names; `more` tells that there are more after the last."""

    word = "runs"
    id: int = field(checks.count)
    runs: tuple[RunReport, ...] = field(checks.many(checks.record(RunReport)), default=())
    more: bool = field(checks.flag, default=False)


class Refused(Message):
    """The answer to any request that is not granted: one of the words of `Refusal`, and a sentence."""

    word = "refused"
    code: str = field(checks.text)
    text: str = field(checks.text)
    id: int = field(checks.count)


# ---- both ways ---------------------------------------------------------------------------------------------


class Bye(Message):
    """The last line of an orderly end: why the one who says it hangs up."""

    word = "bye"
    reason: str = field(checks.text, default="")


class Unrecognized(Record):
    """A line whose type this version does not know; it is refused by name, if it was a request."""

    type: str
    id: int | None = field(checks.optional(checks.count), default=None)


class Refusal:
    """The codes of `refused`."""

    VERSION = "version"
    UNKNOWN_TYPE = "unknown-type"
    UNSUPPORTED = "unsupported"
    NO_RUN = "no-run"
    NAME_TAKEN = "name-taken"
    CAPACITY = "capacity"
    NOT_FOUND = "not-found"
    NOT_EXECUTABLE = "not-executable"
    NO_SUCH_USER = "no-such-user"
    NO_SUCH_DIRECTORY = "no-such-directory"
    NOT_PERMITTED = "not-permitted"
    RESOURCES = "resources"
    STOPPED = "stopped"
    POLICY = "policy"


FROM_MANAGER: dict[str, type[Message]] = {
    kind.word: kind for kind in (Hello, Launch, Poll, Stop, Detach, Hold, Acknowledge, Status, Tail, Bye)
}
FROM_SERVER: dict[str, type[Message]] = {
    kind.word: kind for kind in (Welcome, Launched, Ready, Report, Output, Exited, Done, Runs, Refused, Bye)
}
