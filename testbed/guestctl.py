#!/usr/bin/python3
"""A hypervisor's command for the nodes of a test bed: `guestctl start|stop|destroy|state|migrate GUEST [TARGET]`.

What a package's command set for the VM calls. It asks at the counter outside, since a guest is more than a node's
processes. The invariant: exit code 0 only if what was asked for was done.
"""

import json
import os
import socket
import sys

BED = "/run/testbed"  # a link to the folder of the bed
LIMIT = 120.0  # seconds


def main() -> int:
    """Ask the hypervisor, print its answer, and return the exit code."""
    words = sys.argv[1:]
    if words[:1] == ["migrate"] and not words[2:]:
        words.append(os.environ.get("CMAPP_TARGET", ""))
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(LIMIT)
            link.connect(f"{BED}/counter")
            link.sendall(json.dumps(["guest", socket.gethostname(), *words]).encode() + b"\n")
            with link.makefile("rb") as file:
                answer = str(json.loads(file.readline()))
    except (OSError, ValueError) as error:
        answer = f"error: {error}"
    wrong = answer.startswith("error")
    print(answer, file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
