"""Applying a package to a cluster that runs: it does what was foretold, and disturbs nobody else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from testbed.cluster import Cluster
    from tests.cluster.stories import Story

MINE = """<primitive id="mine" class="ocf" provider="heartbeat" type="Dummy"><meta_attributes id="mine-m">
<nvpair id="mine-m-1" name="resource-stickiness" value="1"/></meta_attributes></primitive>"""
DEFAULT_TIMEOUT = ("--type", "op_defaults", "--name", "timeout")
WITH = '<rsc_colocation id="mine-with" rsc="mine" with-rsc="{}" score="INFINITY"/>'


def again(story: Story, folder: Path) -> str:
    """Apply the package as its file is now, and return what was told."""
    return story.cmapp("package", "apply", str(folder / f"{story.name}.toml"))


def change(story: Story, folder: Path, pattern: str, by: str) -> None:
    """Change the package's file."""
    path = folder / f"{story.name}.toml"
    text, count = re.subn(pattern, by, path.read_text(), flags=re.DOTALL)
    assert count == 1
    path.write_text(text)


def test_apply_again_change_and_remove(story: Story, cluster: Cluster, tmp_path: Path) -> None:
    """The same package changes nothing; a changed service is restarted alone, a removed one stopped alone."""
    story.begin(db={}, web={"stop_timeout": "1s"})  # its helper takes all of that
    for option, text in (("resources", MINE), ("constraints", WITH.format(story.machine))):
        assert cluster.run("n1", "cibadmin", "--create", "--scope", option, "--xml-text", text).returncode == 0
    cluster.until_on("n1", "mine")
    assert again(story, tmp_path) == f"Pacemaker has {story.name} like that already\n"
    db, web, boot = story.pid("db"), story.pid("web"), story.boots()

    # A stop that takes longer than what Pacemaker gives a resource of which it has no definition any more.
    cluster.run("n1", "crm_attribute", *DEFAULT_TIMEOUT, "--update", "4s")
    change(story, tmp_path, r'(\[service\.web\].*?stop_timeout = )"1s"', r'\1"6s"')
    told = again(story, tmp_path)
    assert f"{story.resource('web')} changes\n    parameter stop_timeout: 1s -> 6s\n" in told
    assert f"{story.resource('web')} is restarted on n1\n" in told
    assert story.resource("db") not in told
    story.until_alive("web", after=web)
    story.until_on("n1")

    change(story, tmp_path, r"\[service\.web\].*", "")
    told = again(story, tmp_path)
    assert f"{story.resource('web')} is stopped and removed\n" in told
    assert told.count(" is stopped on n1") == 1
    cluster.until(lambda: story.pid("web") == 0, "the end of web")
    cluster.until(lambda: story.resource("web") not in cluster.told(), "web to be forgotten")
    story.services.remove("web")

    assert (story.pid("db"), story.boots()) == (db, boot)
    assert cluster.where("mine") == "n1"
    assert 'id="mine-with"' in cluster.run("n1", "cibadmin", "--query", "--scope", "constraints").stdout
    assert cluster.fail_count(story.resource("db")) == 0
    cluster.run("n1", "crm_attribute", *DEFAULT_TIMEOUT, "--delete")
    cluster.run("n1", "cibadmin", "--delete", "--xml-text", '<rsc_colocation id="mine-with"/>')
    cluster.run("n1", "cibadmin", "--delete", "--xml-text", '<primitive id="mine"/>')


def test_hold_and_resume(story: Story, cluster: Cluster, tmp_path: Path) -> None:
    """What ends while the package is held stays down, and is running again once it is watched again."""
    story.begin(db={"service_restart": 3}, web={})
    path = str(tmp_path / f"{story.name}.toml")
    assert "held" in story.cmapp("package", "hold", path, "db")
    web, db = story.pid("web"), story.pid("db")
    story.kill("db")
    cluster.until(lambda: cluster.fail_count(story.resource("db")), "the failure to be told")
    assert story.pid("db") == 0
    assert again(story, tmp_path) == f"Pacemaker has {story.name} like that already\n", "maintenance is no difference"
    assert "watched again" in story.cmapp("package", "resume", path, "db")
    story.until_alive("db", after=db)
    story.until_on("n1")
    assert story.pid("web") == web


def test_failed_starts_count_one_by_one(story: Story, cluster: Cluster) -> None:
    """A start that fails is one failure: only after `service_restart` more of them the guest moves."""
    story.begin(db={"service_restart": "unlimited"})
    story.apply(
        db={"service_restart": "unlimited"},
        bad={"command": ["/bin/sh", "-c", "exit 3"], "service_restart": 2, "ready": "notify"},
    )
    cluster.until(lambda: cluster.where(story.machine) == "n2", "the package to move")
    counts = cluster.status().findall(
        f".//node_history/node[@name='n1']/resource_history[@id='{story.resource('bad')}']"
    )
    assert [item.get("fail-count") for item in counts] == ["6"], "two for each"


def test_who_may_not(cluster: Cluster, tmp_path: Path) -> None:
    """Somebody without rights is told so, in one line."""
    path = tmp_path / "erp.toml"
    path.write_text('name = "x"\nhosts = ["n1"]\nguest = "x"\nkeys = "/none"\n[vm]\ndomain = "x"\n[service.db]\n')
    cluster.run("n1", "install", "--mode=644", str(path), "/etc/erp.toml")
    words = ["cmapp", "package", "apply", "/etc/erp.toml"]
    done = cluster.run("n1", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "cmapp: Pacemaker does not let this user in: be root, or of the group haclient"
    )
