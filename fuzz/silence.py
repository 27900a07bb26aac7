"""What the package logs while a target runs is kept from everybody, or given to one listener, and only so long."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def heard_by(listener: logging.Handler) -> Iterator[None]:
    """Have `listener` alone hear what the package logs."""
    package = logging.getLogger("cmapp")
    propagates, package.propagate = package.propagate, False
    package.addHandler(listener)
    try:
        yield
    finally:
        package.removeHandler(listener)
        package.propagate = propagates
