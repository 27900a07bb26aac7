"""docs/migration.md keeps its word: its commands run as they stand, on keystores as the original's users have them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

from tests.java.keytool import LIMIT, exported, generate, needs_java, trust
from tests.system.commands import BIN

pytestmark = needs_java

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
BOXES = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_steps_of_the_move(tmp_path: Path) -> None:
    """Beside the original, on another port and from other files, a server of ours launches for a manager of ours."""
    for side, other in (("guest", "host"), ("host", "guest")):
        own = generate(tmp_path / f"{side}.jks", side, "-dname", "CN=Unknown", kind="rsa")
        trust(tmp_path / f"{other}-trust.jks", **{f"trusted-{side}": exported(own, side)})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    script = "\n".join([*BOXES, "kill $!", "wait"])
    for written, here in (
        ("/etc/cmapp/trial", f"{tmp_path}/trial"),
        ("/var/lib/cmapp-trial", f"{tmp_path}/state"),
        ("*:5316", address),
        ("192.0.2.7:5316", address),
    ):
        assert written in script
        script = script.replace(written, here)
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1.5 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exited with 7" in done.stdout
    assert "manager node1 " in done.stderr
