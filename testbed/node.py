"""The init of a node: makes its private view of the machine, starts the cluster's daemons, and reaps what dies.

    unshare --mount --uts --ipc --pid --fork python3 -IS node.py FOLDER
    unshare --mount python3 -IS node.py FOLDER COMMAND...

FOLDER holds what belongs to this node: `node.json`, and what it has ever written to /etc and /var, which outlives a
crash as a disk does. The rest of the file system is the machine's own, so that what is installed there is installed
in every node. With a COMMAND nothing is started but that, which finds the programs as the node will. The invariant:
nothing that a node writes is seen outside, unless it is below /tmp or in what the node was given.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

OPAQUE = (
    *("etc/corosync", "etc/pacemaker", "etc/cmapp", "etc/libvirt", "var/lib/corosync", "var/lib/pacemaker"),
    *(
        "var/log/corosync",
        "var/log/pacemaker",
        "var/lib/libvirt",
        "var/log/libvirt",
        "var/cache/libvirt",
        "var/log/cmapp",
    ),
)
CORES = ("cib", "pengine", "cores", "blackbox")
FORM_LIMIT = 30.0  # seconds until corosync answers
NEVER_LATE = -10  # the niceness of corosync: a busy machine is not to look like a lost node


def main(folder: Path) -> None:
    """Be PID 1 of the node whose files are in `folder`."""
    config = json.loads((folder / "node.json").read_text())
    name, bed = config["name"], Path(config["bed"])
    outside = str(Path("/proc/self").readlink())  # as the machine knows us: /proc is still its own
    socket.sethostname(name)
    private_files(folder, bed, config["overlays"])
    open_ways(folder, config["closed"])
    private_kernel()
    fresh_run(folder, bed)
    new = folder / "pid.new"
    new.write_text(outside)
    new.replace(folder / "pid")
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    os.environ.clear()
    os.environ.update(environment, LC_ALL="C")
    if config["hook"]:
        subprocess.run([*config["hook"], name, str(folder)], stdin=subprocess.DEVNULL, check=True)
    start_cluster(config["remoted"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.1)


def private_files(folder: Path, bed: Path, overlays: str) -> None:
    """Lay the node's own files over /etc and /var, and the bed's agents over the machine's."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mounted in reversed([path for path in mounts if Path(path).is_relative_to(bed) and path != str(bed)]):
        mount("umount", "--lazy", mounted)  # guests' disks: they would be in use for as long as we live
    for top in ("etc", "var"):
        upper, work = folder / top, folder / f".{top}"
        shutil.rmtree(work, ignore_errors=True)  # what a crash left there would keep the layers from being mounted
        work.mkdir()
        upper.mkdir(exist_ok=True)
        for hidden in (folder / path for path in OPAQUE if path.startswith(top)):
            hidden.mkdir(parents=True, exist_ok=True)
            os.setxattr(hidden, "trusted.overlay.opaque", b"y")  # nothing of the machine's own shines through
        layers = f"lowerdir=/{top},upperdir={upper},workdir={work}"
        mount("mount", "-t", "overlay", "-o", layers, "overlay", f"/{top}")
    for programs in ("usr/sbin", "usr/lib/ocf/resource.d"):
        layers = f"lowerdir={overlays}/{programs}:/{programs}"
        mount("mount", "-t", "overlay", "-o", layers, "overlay", f"/{programs}")
    mount("mount", "--bind", f"{bed}/hosts", "/etc/hosts")
    for keys in (folder / "keys", Path("/etc/cmapp/keys")):
        keys.mkdir(parents=True, exist_ok=True)
    mount("mount", "--bind", str(folder / "keys"), "/etc/cmapp/keys")
    Path("/var/log/cmapp").mkdir(exist_ok=True)
    for path in [Path("/var/lib/pacemaker"), *(Path("/var/lib/pacemaker") / part for part in CORES)]:
        path.mkdir(exist_ok=True)
        shutil.chown(path, "hacluster", "haclient")
    for seed in Path("/var/lib/pacemaker/cib").iterdir():
        shutil.chown(seed, "hacluster", "haclient")
        seed.chmod(0o600)
    shutil.chown("/var/log/pacemaker", "hacluster", "haclient")
    shutil.chown("/etc/pacemaker", "root", "haclient")
    shutil.chown("/etc/pacemaker/authkey", "root", "haclient")


def open_ways(folder: Path, closed: list[str]) -> None:
    """Let everybody pass through folders that only their owner may: Pacemaker asks agents as a user of its own."""
    for number, path in enumerate(closed):
        upper, work = folder / f"way{number}", folder / f".way{number}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        upper.mkdir(exist_ok=True)
        upper.chmod(0o755)
        mount("mount", "-t", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={work}", "overlay", path)


def private_kernel() -> None:
    """Show the node's own processes and network, and keep it from the machine's settings."""
    mount("mount", "-t", "proc", "proc", "/proc")
    if Path("/proc/sysrq-trigger").exists():  # by it a node in "panic" would reboot the real machine
        mount("mount", "--bind", "/dev/null", "/proc/sysrq-trigger")
    mount("mount", "--bind", "/proc/sys", "/proc/sys")
    mount("mount", "-o", "remount,ro,bind", "/proc/sys")
    held = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY)
    mount("mount", "-t", "sysfs", "sysfs", "/sys")
    mount("mount", "--rbind", f"/proc/{os.getpid()}/fd/{held}", "/sys/fs/cgroup")
    os.close(held)
    mount("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")  # noqa: S108 - corosync's


def fresh_run(folder: Path, bed: Path) -> None:
    """Give the node an empty /run, with the folder of the bed at its place in it."""
    new = folder / "run"
    new.mkdir(exist_ok=True)
    mount("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(new))
    inside = new / bed.relative_to("/run")
    inside.mkdir(parents=True)
    mount("mount", "--bind", str(bed), str(inside))
    mount("mount", "--rbind", str(new), "/run")
    Path("/run/testbed").symlink_to(bed)
    for path, mode in (("lock", 0o1777), ("crm", 0o750), ("resource-agents", 0o755)):
        made = Path("/run") / path
        made.mkdir()
        made.chmod(mode)
    shutil.chown("/run/crm", "hacluster", "haclient")


def start_cluster(remoted: str) -> None:
    """Start Corosync and, when it answers, Pacemaker; or the daemon of a remote node."""
    os.environ.update(PCMK_logfile="/var/log/pacemaker/pacemaker.log", PCMK_logfacility="none", PCMK_fail_fast="no")
    if remoted:
        subprocess.Popen([remoted], stdin=subprocess.DEVNULL)
        return
    subprocess.Popen(["nice", "-n", str(NEVER_LATE), "corosync", "-f"], stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + FORM_LIMIT
    while subprocess.run(["corosync-cfgtool", "-s"], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            sys.exit("corosync does not answer")
        time.sleep(0.05)
    subprocess.Popen(["pacemakerd", "-f"], stdin=subprocess.DEVNULL)


def mount(*argv: str) -> None:
    """Run a command that mounts or unmounts, which must not fail."""
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    if sys.argv[2:]:
        open_ways(Path(sys.argv[1]), json.loads(Path(sys.argv[1], "node.json").read_text())["closed"])
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - as asked for
    main(Path(sys.argv[1]))
