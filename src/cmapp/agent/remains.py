"""What is left of a run in its guest, asked of the guest's server, or of others if it does not answer.

The invariant: "cannot be asked" is an error of its own, never "nothing is left".
"""

from __future__ import annotations

import select
import time

from cmapp.core.reading import Word
from cmapp.host.inquiry import Inquiry
from cmapp.host.opinion import Question
from cmapp.net.identity import Role
from cmapp.net.keyring import Keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.agent.resource import Resource
    from cmapp.core.messages import RunReport


def find(resource: Resource, run_id: str) -> RunReport | None:
    """Return how the run is, None if nothing of it is left; raises CmappError if the guest cannot be asked.

    The server has as long for each answer as for that to a poll.
    """
    guest, address = resource.addresses
    patience = resource.settings.poll_timeout
    keyring = Keyring(resource.settings.keys, Role.HOST, peer=guest.host, allow_tls12=resource.settings.allow_tls12)
    with Inquiry(guest, address, keyring.context(), patience=patience) as inquiry:
        return next((run for run in inquiry.runs() if run.run_id == run_id), None)


def guest_is_down(resource: Resource) -> str:
    """Return who says so in what words, if whoever may be asked says that the guest is down; else nothing."""
    if not resource.settings.whom_to_ask:
        return ""
    question = Question(resource.settings.whom_to_ask)
    question.ask(time.monotonic())
    try:
        while (opinion := question.answer(time.monotonic())) is None:
            waiting = select.poll()
            question.register(waiting)
            waiting.poll(max(0.0, question.deadline - time.monotonic()) * 1000)
    finally:
        question.end()
    return opinion.text if opinion.state is Word.DOWN else ""
