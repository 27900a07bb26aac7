"""Who is let in with which launch: by the guest's policy, by the run id, and by who else has the name.

A manager that is there and answers is not pushed aside: a newcomer waits until that manager is heard again, and is
refused then, or until it is lost. The invariants: at most one launch waits for a name; a run id is started at most
once, however often it is launched; what the policy refuses leaves no trace but a line in the log.
"""

from __future__ import annotations

from cmapp.core import messages as m
from cmapp.core.lifecycle import Event
from cmapp.core.outcome import Reason
from cmapp.core.peer import Newcomer, Newcomers, Peer, same
from cmapp.core.policy import REFUSED, Denied, Policy
from cmapp.core.rules import OnExisting
from cmapp.core.unitname import refuse_contradictions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from cmapp.core.charge import Charge
    from cmapp.core.custody import Custody


class Admission:
    """Decides on launches; what comes of it is in `custody`'s effects. At most `most` runs are alive."""

    def __init__(self, custody: Custody, most: int) -> None:
        self.most = most
        self.policy = Policy()
        self.peers: dict[Hashable, Peer] = {}
        self.waiting = Newcomers()
        self.closing = False  # launches no more
        self._custody = custody
        self._archive = custody.archive

    def launch(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        """Decide on a launch that came: what it asks for is the policy's to change."""
        try:
            if launch.unit:
                refuse_contradictions(launch.unit, vars(launch))
        except ValueError as error:
            self._refuse(peer, launch, m.Refusal.UNSUPPORTED, str(error))
            return
        decision = self.policy.decide(peer.manager, launch)
        if isinstance(decision, Denied) and decision.unknown:
            self._refuse(peer, launch, m.Refusal.NOT_FOUND, decision.text)
        elif isinstance(decision, Denied):
            self._deny(peer, launch, decision.text)
        else:
            peer.most = decision.most
            self._admit(decision.launch, peer, now, wall)

    def heard(self, charge: Charge) -> None:
        """Take note that the manager of this run answers: whoever waits for it to be left waits in vain."""
        newcomer = self.waiting.get(charge.launch.name)
        if newcomer is not None and newcomer.contested:
            del self.waiting[charge.launch.name]
            text = f"an application of the name {charge.launch.name} is already watched by manager {charge.manager}"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.NAME_TAKEN, text)

    def gone(self, peer: Peer, now: float) -> None:
        """Take note that a manager is gone which had no run: it may have come back for one, and not yet asked."""
        for newcomer in list(self.waiting.values()):
            holder = self._custody.names[newcomer.launch.name]
            if holder.link is None and same(peer, holder.owner):
                self.decide(holder, now)

    def take_back(self, link: Hashable) -> None:
        """Take back a launch that waits, as its manager wishes."""
        if (newcomer := self.waiting.withdraw(link)) is not None:
            text = "it was stopped before it was launched"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.STOPPED, text)

    def decide(self, charge: Charge, now: float) -> None:
        """Let in who waited to see whether the manager of this run answers: it is gone."""
        newcomer = self.waiting.get(charge.launch.name)
        if newcomer is not None and newcomer.contested:
            del self.waiting[charge.launch.name]
            self._contend(newcomer.launch, newcomer.peer, charge, now)

    def clock(self, now: float) -> None:
        """Let in who waited for a manager that had its time to come back."""
        for holder in [self._custody.names[name] for name in self.waiting.contested]:
            if holder.link is None and now >= holder.expected:
                self.decide(holder, now)

    @property
    def expected(self) -> list[float]:
        """When managers for whom others wait must have come back."""
        return [self._custody.names[name].expected for name in self.waiting.contested]

    def refill(self, now: float, wall: float) -> None:
        """Start what waits for names that have become free."""
        while self._custody.freed:
            newcomer = self.waiting.pop(self._custody.freed.pop(), None)
            if newcomer is not None:
                self._admit(newcomer.launch, newcomer.peer, now, wall)

    def close(self) -> None:
        """Launch no more, and refuse what waits."""
        self.closing = True
        for newcomer in [self.waiting.pop(name) for name in list(self.waiting)]:
            text = f"{newcomer.launch.name} was not launched: the server is being stopped"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.STOPPED, text)

    # ---- decisions -----------------------------------------------------------------------------------------

    def _admit(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        """Decide on a launch that came, or that has waited for its name."""
        charge, kept = self._custody.runs.get(launch.run_id), self._archive.find(launch.run_id, launch.name)
        if kept is not None and kept.receipt.name == launch.name:
            self._custody.say(peer.link, m.Launched(launch.id, launch.run_id, kept.pid, attached=True))
            self._custody.say(peer.link, m.Exited(kept.receipt))
            self._archive.give(launch.run_id, peer.manager)
        elif charge is not None and charge.launch.name != launch.name:
            text = f"the run {launch.run_id} is one of the application {charge.launch.name}"
            self._refuse(peer, launch, m.Refusal.NAME_TAKEN, text)
        elif charge is not None and not self._may_take(launch, peer, charge):
            return
        elif charge is not None and not charge.run.alive:  # it could not be started, and may be again
            self._wait(launch, peer, charge, contested=False)
        elif charge is not None:
            self._return(launch, peer, charge)
        elif launch.resume or kept is not None:
            self._archive.give_up(launch.run_id)  # its manager concludes that, so it must stay true
            self._refuse(peer, launch, m.Refusal.NO_RUN, f"nothing is known of a run {launch.run_id} of {launch.name}")
        elif self.closing:
            self._refuse(peer, launch, m.Refusal.STOPPED, "the server is being stopped")
        elif (holder := self._custody.names.get(launch.name)) is not None:
            self._contend(launch, peer, holder, now)
        else:
            self._start(launch, peer, now, wall)

    def _return(self, launch: m.Launch, peer: Peer, charge: Charge) -> None:
        """Attach the manager of a run that comes back to it, unless somebody else is there in its name."""
        owner = self.peers.get(charge.link)
        if owner is None or launch.takeover or same(owner, peer):
            self._custody.bind(charge, peer, launch.id)
        else:
            self._wait(launch, peer, charge, contested=True)

    def _contend(self, launch: m.Launch, peer: Peer, holder: Charge, now: float) -> None:
        """Decide what becomes of a launch whose name is another run's, or whose run is another manager's."""
        run, taken = holder.run, m.Refusal.NAME_TAKEN
        if not self._may_take(launch, peer, holder):
            return
        if not run.alive:
            self._wait(launch, peer, holder, contested=False)
        elif (holder.link is not None or now < holder.expected) and not launch.takeover:
            self._wait(launch, peer, holder, contested=True)
        elif launch.run_id == holder.run_id:
            self._custody.bind(holder, peer, launch.id)
        elif launch.on_existing is OnExisting.REFUSE:
            self._refuse(peer, launch, taken, f"an application of the name {launch.name} runs already")
        elif launch.on_existing is OnExisting.ATTACH and not run.stopping:
            self._custody.bind(holder, peer, launch.id)
        elif run.held:
            self._refuse(peer, launch, taken, f"{launch.name} is held: it is not replaced until it is resumed")
        elif self._wait(launch, peer, holder, contested=False):
            self._custody.step(holder, Event.STOP_WANTED, now, reason=Reason.REPLACED)

    def _wait(self, launch: m.Launch, peer: Peer, holder: Charge, *, contested: bool) -> bool:
        if launch.name in self.waiting:
            self._refuse(peer, launch, m.Refusal.NAME_TAKEN, f"another launch of {launch.name} waits already")
            return False
        what = f"to see whether manager {holder.manager} answers" if contested else "for the end of the run before"
        self._custody.log("info", f"{launch.name} (run {launch.run_id}) waits {what}")
        self.waiting[launch.name] = Newcomer(launch, peer, contested=contested)
        return True

    def _may_take(self, launch: m.Launch, peer: Peer, charge: Charge) -> bool:
        """Tell whether the run may become this manager's, or give way to its launch; refuse the launch if not."""
        if charge.manager == peer.manager or self.policy.may_take(peer.manager, charge.launch):
            return True
        self._deny(peer, launch, f"manager {charge.manager} has a run of that name which it might not launch itself")
        return False

    def _start(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        alive = [charge.manager for charge in self._custody.runs.values() if charge.run.alive]
        if len(alive) >= self.most:
            text = f"{self.most} applications run, which is max_applications of this guest"
            self._refuse(peer, launch, m.Refusal.CAPACITY, text)
        elif peer.most is not None and alive.count(peer.manager) >= peer.most:
            text = f"{peer.most} applications of that manager run, which is the most that its rule allows"
            self._deny(peer, launch, text)
        else:
            self._custody.start(launch, peer, now, wall)

    def _deny(self, peer: Peer, launch: m.Launch, text: str) -> None:
        """Refuse by policy: what it is about is for the guest's log only."""
        self._custody.log("warning", f"launch of {launch.name} by manager {peer.manager} refused by policy: {text}")
        self._custody.say(peer.link, m.Refused(m.Refusal.POLICY, REFUSED, id=launch.id))

    def _refuse(self, peer: Peer, launch: m.Launch, code: str, text: str) -> None:
        self._custody.log("warning", f"launch of {launch.name} by manager {peer.manager} refused: {text}")
        self._custody.say(peer.link, m.Refused(code, text, id=launch.id))
