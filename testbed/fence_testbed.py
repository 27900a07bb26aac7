#!/usr/bin/python3
"""A fence agent for the nodes of a test bed: it asks at the counter outside that a node's power be switched.

The invariant: it says that a node is off only when the power switch has said so.
"""

import json
import socket
import sys

META = """<?xml version="1.0"?>
<resource-agent name="fence_testbed" shortdesc="The power switch of a test bed">
<longdesc>For tests only: it switches nodes that are namespaces.</longdesc>
<parameters>
<parameter name="action" required="1"><content type="string" default="off"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter>
<parameter name="switch" required="1"><content type="string"/></parameter>
</parameters>
<actions>
<action name="on"/><action name="off"/><action name="reboot"/><action name="status"/>
<action name="monitor"/><action name="list"/><action name="metadata"/>
</actions>
</resource-agent>"""
CODES = {"ok": 0, "on": 0, "off": 2}
LIMIT = 30.0  # seconds


def main() -> int:
    """Do what the options on the standard input say, and return the exit code."""
    options = {}
    if not sys.stdin.isatty():
        options = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
    if "-o" in sys.argv:
        options["action"] = sys.argv[sys.argv.index("-o") + 1]
    action = options.get("action", "off")
    if action == "metadata":
        print(META)
        return 0
    try:
        answer = asked(options["switch"], action, options.get("plug") or options.get("nodename", ""))
    except (OSError, KeyError, ValueError) as error:
        print(f"fence_testbed: {error}", file=sys.stderr)
        return 1
    if action == "list":
        print(answer)
        return 0
    return CODES.get(answer, 1)


def asked(switch: str, action: str, node: str) -> str:
    """Return what the power switch answers."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(LIMIT)
        link.connect(switch)
        link.sendall(json.dumps(["power", action, node]).encode() + b"\n")
        with link.makefile("rb") as file:
            return str(json.loads(file.readline()))


if __name__ == "__main__":
    sys.exit(main())
