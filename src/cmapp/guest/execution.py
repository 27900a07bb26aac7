"""One run, carried out: the lifecycle's actions become signals, what happens to processes becomes its events.

It watches descriptors on the event loop and reports events by run id; each action has one method here. The
invariant: everything that is registered with the loop is taken back before its descriptor is closed, and nothing
is signalled or waited for but by the run's tree, or a process whose identity is proven.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, ClassVar, Self

from cmapp.core.lifecycle import Action, Event
from cmapp.core.messages import Refusal, Stream
from cmapp.core.rules import Kind
from cmapp.errors import RunError
from cmapp.guest import fdstore
from cmapp.guest.adoption import process_left
from cmapp.guest.command import Commands
from cmapp.guest.containment import tree_left
from cmapp.guest.daemon import Daemon, is_orphan_since
from cmapp.guest.ending import Ending
from cmapp.guest.health import Care, check
from cmapp.guest.preparation import limit, open_output, plan_of
from cmapp.guest.proc import Usage
from cmapp.guest.process import Process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.core.effects import Adopt
    from cmapp.core.messages import Launch
    from cmapp.guest.containment import Tree
    from cmapp.guest.output import Capture
    from cmapp.guest.surroundings import Surroundings

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.2  # seconds until it is looked again whether the status of an adopted process was taken


class Execution:
    """A run here: `process` is watched, None if none is left of an adopted one; `captures` are what it has written."""

    def __init__(self, around: Surroundings, launch: Launch, tree: Tree) -> None:
        """Not to be called: see `prepare` and `adopt`."""
        self.launch = launch
        self._around = around
        self.tree = tree
        self.process: Process | None = None
        self._watching = False
        self._socket = f"@cmapp/{launch.run_id}"  # no path, which a user other than root could not reach
        self._daemon: Daemon | None = None
        self._again: asyncio.TimerHandle | None = None
        self._trouble: tuple[str, str] | None = None
        self.captures: dict[Stream, Capture] = {}
        self.care = Care(around.loop, launch, Commands(around, launch, tree).run, self._on_said, tree.owns)
        self._ending = Ending(around.loop, launch, tree, self.care, self._tell)

    @classmethod
    def prepare(cls, around: Surroundings, launch: Launch) -> Self:
        """Start the process that waits to become the application; raises RunError when it cannot be."""
        check(launch)
        tree = around.containment.tree(launch.run_id)
        run = cls(around, launch, tree)
        try:
            limit(tree, launch)
            run.care.listen(run._socket)
            run.captures = open_output(around, launch)
            env = {**launch.env, **tree.env, **run.care.environment(run._socket)}
            run._watch_for_daemon()
            run._spawn({**plan_of(around, launch), "argv": launch.argv, "env": env})
        except RunError:
            tree.started(0)
            run._end()
            raise
        return run

    @classmethod
    def adopt(cls, around: Surroundings, adopt: Adopt) -> Self:
        """Take over what a server before this one has launched, by hand or from what is found of it."""
        launch, handed = adopt.launch, around.handed.pop(adopt.run_id, {})
        run = cls(around, launch, tree_left(around.containment, adopt.run_id, adopt.where, handed.get("known", ())))
        run.process = process_left(adopt, handed.get("process"), around.stored.pop(adopt.run_id, None))
        if run.process is not None:
            run.tree.started(adopt.pid)
            around.leaders |= run.process.kept
        try:
            limit(run.tree, launch)  # a cgroup may have lost its limits while there was no server
        except RunError as error:
            log.error("%s: %s", run._name, error)
        try:
            run.care.listen(run._socket, handed.get("notices"))
            run.captures = open_output(around, launch)
        except RunError as error:
            log.error("%s: what it says cannot be heard: %s", run._name, error)
            run.captures = open_output(around, launch, live=False)
        return run

    # ---- what others ask -----------------------------------------------------------------------------------

    @property
    def starting(self) -> bool:
        """Whether it is not known yet if the command could be executed."""
        return self.process is not None and not self.process.trouble_read

    def usage(self) -> Usage:
        """Return what the whole tree uses."""
        try:
            return self.tree.usage()
        except OSError:
            return Usage(0.0, 0, 0)

    def look_around(self) -> None:
        """Look who belongs to the tree, while it can be seen; once a second."""
        self.tree.remember()

    def recorded(self, error: OSError | None) -> None:
        """Take note that the run's file is written, or why not."""
        if error is not None:
            text = f"its record cannot be written to the state folder: {error.strerror}"
            self._trouble = (Refusal.RESOURCES, text)
            log.error("%s: %s", self._name, text)
        self._tell(Event.NOT_RECORDED if error else Event.RECORDED)

    def go_on(self, *, ready: bool) -> None:
        """Watch a run that was adopted."""
        self._watch_process()
        self._watch_output()
        self.care.launched(ready=ready)

    def handover(self) -> tuple[dict[str, Any], list[int]]:
        """Return what `adopt` must be told in the next program of this process, and the descriptors it needs."""
        self.care.rest()
        if self.process is None or self.starting:
            return {}, []
        known = list(self.tree.known.items())
        told = {"process": self.process.handover(), "known": known, "notices": self.care.descriptor}
        notices = [] if self.care.descriptor is None else [self.care.descriptor]
        return told, [*self.process.descriptors, *notices]

    def let_go(self) -> None:
        """Touch nothing of it any more: the next server goes on with it."""
        self.care.close(remove=False)

    def do(self, action: Action) -> None:
        """Carry an action of the lifecycle out."""
        self._DO[action](self)

    # ---- the start -----------------------------------------------------------------------------------------

    def _watch_for_daemon(self) -> None:
        if self.launch.kind is Kind.FORKING:
            self._daemon = Daemon(
                self._around.loop,
                self.tree,
                self.launch.pid_file,
                follow=self._follow_daemon,
                ended=lambda outcome: self._tell(Event.LEADER_ENDED, outcome=outcome),
            )

    def _spawn(self, plan: Mapping[str, Any]) -> None:
        stdout, stderr = (self.captures[stream].writer() for stream in (Stream.STDOUT, Stream.STDERR))
        try:
            process = self.process = Process(plan, stdout, stderr, self.tree.join)
        finally:
            os.close(stdout)
            os.close(stderr)
        self.tree.started(process.pid)
        self._around.leaders.add(process.pid)
        self._around.loop.add_reader(process.trouble, self._on_trouble)
        self._watch_process()

    # ---- what happens --------------------------------------------------------------------------------------

    def _tell(self, event: Event, **details: Any) -> None:
        self._around.happened(self.launch.run_id, event, **details)

    def _watch_process(self) -> None:
        if self.process is not None:
            self._watching = True
            self._around.loop.add_reader(self.process.pidfd, self._on_leader)

    def _watch_output(self) -> None:
        for stream, capture in self.captures.items():
            if not capture.closed:
                self._around.loop.add_reader(capture.descriptor, self._on_output, stream)

    def _on_trouble(self, *, last: bool = False) -> None:
        process = self.process
        if process is None or not (process.hear_trouble() or last):
            return
        self._around.loop.remove_reader(process.trouble)
        trouble = process.take_trouble()
        if trouble is None:
            fdstore.keep(self.launch.run_id, process.pidfd)
            self._tell(Event.SPAWNED)
            self._watch_output()  # from here on, so that nothing is heard before "launched"
            self.care.launched()
        else:
            told_itself = trouble[0] != Refusal.RESOURCES
            self._tell(Event.SPAWN_FAILED, refusal=trouble if told_itself or self._trouble is None else self._trouble)

    def _on_leader(self) -> None:
        process, loop = self.process, self._around.loop
        if process is None or not self._watching:  # its end was seen, by one way or another
            return
        outcome = process.outcome()
        if outcome is None:
            if process.has_ended:  # and waits for whoever its parent is now to take its status
                loop.remove_reader(process.pidfd)
                self._again = loop.call_later(LOOK_AGAIN, self._on_leader)
            return
        loop.remove_reader(process.pidfd)
        self._watching = False
        if not process.trouble_read:
            self._on_trouble(last=True)  # whoever could say more has ended
        if self._daemon is None or not self._daemon.goes_on(outcome):
            self._tell(Event.LEADER_ENDED, outcome=outcome)

    def _on_output(self, stream: Stream) -> None:
        data = self.captures[stream].read()
        if data:
            self._around.wrote(self.launch.run_id)
        elif data is None:
            self._around.loop.remove_reader(self.captures[stream].descriptor)
            self.captures[stream].close()
            if self.process is not None and self.process.main.pid == self.process.pid:
                self._on_leader()  # its streams end a moment before it does, and that moment may be over by now

    def _on_said(self, event: str, text: str) -> None:
        match event:
            case "ready":
                self._tell(Event.READY)
            case "unhealthy":
                self._tell(Event.UNHEALTHY, detail=text)
            case "beat":
                self._around.beat(self.launch.run_id)
            case "main":
                self._follow(int(text))
            case "status":
                log.info("%s: says: %s", self._name, text)

    def _follow_daemon(self, pid: int) -> bool:
        """Watch the process that a daemon has left; with that it is ready, unless something else is asked for."""
        followed = self._follow(pid)
        if followed and self.launch.ready is None:
            self.care.ready()
            self._tell(Event.READY)
        return followed

    def _follow(self, pid: int) -> bool:
        """Watch another process of the tree as the main one; return whether it could be."""
        process, loop = self.process, self._around.loop
        if process is None:
            return False
        loop.remove_reader(process.pidfd)
        try:
            followed = process.follow(pid, self._owns)
        except OSError:
            followed = False
        if followed:
            self.tree.started(pid)
            self._around.leaders |= process.kept
            log.info("%s: its main process is %d", self._name, pid)
            self._around.moved(self.launch.run_id, process.main.pid, process.main.start)
            fdstore.drop(self.launch.run_id)
            fdstore.keep(self.launch.run_id, process.pidfd)
        if followed or self._daemon is None:
            self._watch_process()
        return followed

    def _owns(self, pid: int) -> bool:
        if self.tree.owns(pid):
            return True
        by_file = self._daemon is not None and bool(self.launch.pid_file)
        return by_file and self.process is not None and is_orphan_since(pid, self.process.start, self._around.leaders)

    # ---- what is done --------------------------------------------------------------------------------------

    def _execute(self) -> None:
        if self.process is not None:
            self.process.go()

    def _kill(self) -> None:
        if self.starting and self._trouble is None:
            self._trouble = (Refusal.STOPPED, "it was killed before it was launched")
        self._ending.kill(self.process)

    def _drain(self) -> None:
        for capture in self.captures.values():
            for _ in capture.last_words():
                pass

    def _end(self) -> None:
        self.care.close()
        if self._daemon is not None:
            self._daemon.close()
        if self._again is not None:
            self._again.cancel()
        for capture in self.captures.values():
            if not capture.closed:
                self._around.loop.remove_reader(capture.descriptor)
            capture.retire()
        fdstore.drop(self.launch.run_id)
        if self.process is not None:
            self._around.loop.remove_reader(self.process.pidfd)
            self._around.leaders -= self.process.kept
            self.process.reap()
        self.tree.remove()

    @property
    def _name(self) -> str:
        return f"{self.launch.name} (run {self.launch.run_id})"

    _DO: ClassVar[dict[Action, Callable[[Execution], None]]] = {
        Action.EXECUTE: _execute,
        Action.ASK_TO_STOP: lambda self: self._ending.ask(self.process),
        Action.SIGNAL_TREE: lambda self: self._ending.signal_tree(self.process),
        Action.SIGNAL_REST: lambda self: self._ending.signal_rest(),
        Action.KILL_TREE: _kill,
        Action.WATCH_TREE: lambda self: self._ending.watch(),
        Action.TELL_ENDED: _drain,
        Action.COMPLAIN: lambda self: self._ending.complain(),
        Action.FREE_NAME: _end,
    }
