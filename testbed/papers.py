"""What the daemons of a cluster read before they know each other: Corosync's configuration and the first CIB.

The invariant: both are the same for all nodes, and name every node, so that none waits for a stranger.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMAS = Path("/usr/share/pacemaker")
FEATURE_SET = "3.0.14"  # what every Pacemaker that has 3.0's schema can read; one too new would be refused
TOKEN = 1.5  # seconds without a word after which a node is lost; nodes are fenced a little more than twice that later
PAIR = 2  # nodes, which need a word of their own on who may go on alone
DC_DEADTIME = 1.0  # seconds that the first node waits for another to lead; Pacemaker's own 20 s is what a start costs


def corosync_conf(name: str, nodes: Mapping[str, str], token: float = TOKEN) -> str:
    """Return corosync.conf for nodes with these addresses."""
    listed = "".join(
        f"  node {{\n    ring0_addr: {address}\n    name: {node}\n    nodeid: {number}\n  }}\n"
        for number, (node, address) in enumerate(nodes.items(), 1)
    )
    pair = "  two_node: 1\n  wait_for_all: 0\n" if len(nodes) == PAIR else ""
    return (
        f"totem {{\n  version: 2\n  cluster_name: {name}\n  transport: udpu\n"
        f"  token: {token * 1000:.0f}\n  token_coefficient: 0\n}}\n"
        "system {\n  sched_rr: no\n  move_to_root_cgroup: no\n}\n"
        f"quorum {{\n  provider: corosync_votequorum\n{pair}}}\n"
        "logging {\n  to_logfile: yes\n  logfile: /var/log/corosync/corosync.log\n  to_syslog: no\n"
        "  to_stderr: no\n  timestamp: hires\n}\n"
        f"nodelist {{\n{listed}}}\n"
    )


def first_cib(switch: Path, nodes: list[str]) -> str:
    """Return the CIB that a node begins with: fencing is on, by the power switch behind the socket `switch`."""
    options = {
        "stonith-enabled": "true",
        "stonith-action": "off",  # a fenced node stays off until somebody starts it
        "startup-fencing": "false",
        "dc-deadtime": f"{DC_DEADTIME:g}s",
        "cluster-delay": "10s",
        "load-threshold": "1000%",  # or what is done at once depends on how busy the machine is
    }
    properties = _pairs("option", options)
    attributes = _pairs("fence", {"switch": str(switch), "pcmk_host_list": " ".join(nodes)})
    return (
        f'<cib crm_feature_set="{FEATURE_SET}" validate-with="{_newest_schema()}" epoch="1" num_updates="0" '
        'admin_epoch="0"><configuration><crm_config>'
        f'<cluster_property_set id="cib-bootstrap-options">{properties}</cluster_property_set></crm_config><nodes/>'
        f'<resources><primitive id="fence" class="stonith" type="fence_testbed"><instance_attributes id="fence-ia">'
        f"{attributes}</instance_attributes></primitive></resources><constraints/></configuration><status/></cib>\n"
    )


def _pairs(prefix: str, values: Mapping[str, str]) -> str:
    return "".join(f'<nvpair id="{prefix}-{name}" name="{name}" value="{value}"/>' for name, value in values.items())


def _newest_schema() -> str:
    numbers = [re.fullmatch(r"pacemaker-3\.(\d+)\.rng", path.name) for path in SCHEMAS.glob("pacemaker-3.*.rng")]
    return f"pacemaker-3.{max((int(found[1]) for found in numbers if found), default=0)}"
