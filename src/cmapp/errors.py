"""The exception tree. Each str() is one plain sentence: what happened, to what, and what to do.

The invariant: whatever reaches a user is a CmappError, so a command prints one line and never a traceback.
"""


class CmappError(Exception):
    """Anything that cmapp can say about what went wrong."""


class SettingsError(CmappError):
    """What the user gave is wrong: usage, a configuration file, a key folder."""


class TrustError(CmappError):
    """The peer did not prove who it is, or it did not believe us: trying again cannot help."""


class LinkError(CmappError):
    """The link could not be made, or broke: trying again may help."""


class ProtocolError(CmappError):
    """Something was said that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """We were about to say it: a defect of our own, the peer is not to blame."""


class RemoteProtocolError(ProtocolError):
    """The peer said it: the connection ends with this reason."""


class StateError(CmappError):
    """A state machine was given an event that its table does not allow: a defect of our own."""


class RunError(CmappError):
    """A run could not be started; `code` is one of the words of `refused` in the protocol."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def place_of(error: BaseException) -> str:
    """Return where an error that is a defect of ours was raised, as `file.py:12`, or "" if that is not known."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""


def internal_error(error: BaseException) -> str:
    """Return one line for a defect of ours: what it is, and where."""
    place = place_of(error)
    return f"internal error: {type(error).__name__}: {error}{place and f', at {place}'}"
