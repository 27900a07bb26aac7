"""docs/java.md keeps its word: its commands run as they stand, and make what it says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.java.keytool import JAVA, LIMIT, needs_java
from tests.system.commands import BIN

if TYPE_CHECKING:
    from tests.system.bed import Bed

pytestmark = needs_java

PAGE = Path(__file__).parents[2] / "docs" / "java.md"
BOXES = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands of the page ran."""
    folder = tmp_path_factory.mktemp("java-doc")
    path = f"{BIN}:{Path(str(JAVA)).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(BOXES)],
        cwd=folder, env={"PATH": path, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
        timeout=1.5 * LIMIT, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_keys_of_the_authority_work(bed: Bed, ran: Path) -> None:
    """The guest's folder serves and the host's calls, by the name that the certificate bears."""
    server = bed.serve(keys=ran / "vm1")
    options = ("--address", server.guest)
    assert bed.run("/bin/sh", "-c", "exit 7", keys=ran / "node1", guest="vm1", options=options).wait() == 7
    assert "manager node1 " in server.log


def test_the_self_signed_pair_works(bed: Bed, ran: Path) -> None:
    """Each is known by the name under which the other has pinned it."""
    server = bed.serve(keys=ran / "pair-guest")
    options = ("--address", server.guest)
    assert bed.run("/bin/sh", "-c", "exit 7", keys=ran / "pair-host", guest="vm1", options=options).wait() == 7
    assert "manager node1 " in server.log


def test_every_keystore_for_java_is_its_owner_s_only(ran: Path) -> None:
    """Those that cmapp made."""
    made = sorted(ran.glob("for-*/*"))
    assert [path.name for path in made] == ["keystore.p12", "truststore.p12", "keystore.jks", "truststore.jks"]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
