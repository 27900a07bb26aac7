"""Rules for tests of what the server asks of a run, and of what a run says."""

from __future__ import annotations

import sys

from cmapp.core.rules import HealthRules, Probe, ReadyRules

PYTHON = (sys.executable, "-I", "-S", "-c")
TELLS = """
import os, signal, socket, sys, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def tell(*words):
    sock.sendto("\\n".join(words).encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""
UNHEALTHY = 124


def checked(*command: str, interval: float = 0.1, timeout: float = 10.0, retries: int = 2) -> HealthRules:
    """Return health rules with short times, unless told others."""
    return HealthRules(command, interval, timeout, retries)


def asked(probe: Probe, target: str = "", *command: str, timeout: float = 60.0) -> ReadyRules:
    """Return readiness rules."""
    return ReadyRules(probe, target, command, timeout)
