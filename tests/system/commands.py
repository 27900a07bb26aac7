"""The installed commands, and what none of them may ever say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BIN = Path(sys.executable).parent
CMAPP, MANAGER, SERVER = (str(BIN / name) for name in ("cmapp", "cmappmgr", "cmappserver"))
END_LIMIT = 60.0  # seconds within which whatever was started has ended
DEFECT = re.compile(r"Traceback|internal error|Exception ignored")


def check_for_defects(*texts: str) -> None:
    """Fail if a command told of a defect of its own."""
    for text in texts:
        if found := DEFECT.search(text):
            raise AssertionError(f"a defect was told of: {text[max(0, found.start() - 200) :][:2000]}")


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run any command to its end in an empty environment, and look for defects in what it says."""
    done = subprocess.run(
        command,
        env=env or {},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=END_LIMIT,
        check=False,
    )
    check_for_defects(done.stdout, done.stderr)
    return done
