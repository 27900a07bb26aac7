"""The last steps of a launched process before it becomes the application.

Run as `python -I -S -c TEXT` in a session of its own, with the plan on descriptor 3 and the way to the server on
descriptor 4, which closes by itself when the application starts. It joins its cgroup before anything else, and
becomes the application only when the server has said `go`: if the server is gone it ends without a word. Changing
user and folder here instead of in the server keeps the server's loop free: a large process that forks itself for
it stands still for 20 ms. Nothing of the package is imported, and little else, because this runs once a launch.
"""

import _signal  # type: ignore[import-not-found]  # `signal` would import enum, for a third of the time
import errno
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PLAN, TROUBLE, JOIN = 3, 4, 5
TOLD = 1000  # characters
ABOUT_TO = b"+"  # without it, an end of ours that nobody foresaw would pass for the application's
SCARCE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ
NOT_AS_ROOT = "the server was started where nothing may run as root, and is kept from it until it is started anew"
CAPABILITIES = 0x20080522  # the version of capset(2)
FIFO, KIND = 0o010000, 0o170000  # of a file's mode


class Trouble(Exception):  # noqa: N818 - a word of the house, not an error of ours
    """Why the application cannot be started: a word of the protocol's `refused`, and a sentence."""


def main() -> None:
    """Become the application, or tell why not."""
    os.set_inheritable(TROUBLE, False)
    try:
        with open(PLAN, "rb") as file:
            plan = marshal.load(file)  # noqa: S302 - written by the server that started us
        if plan["join"]:
            join()
        rights = rights_of(plan["user"], plan["group"])
        who = " ".join(f"{kind} {plan[kind]}" for kind in ("user", "group") if plan[kind])
        lay_down = confined(rights) if plan.get("confined") else None
        own_output(rights)
        if not os.read(TROUBLE, 1):
            os._exit(1)  # the server is gone, and nobody would know of the application
        limit({"nofile": plan["descriptors"], **plan["limits"]})
        os.umask(plan["umask"])
        become(rights, who)
        if lay_down is not None:
            lay_down()
        enter(plan["cwd"])
        tell_about_to()
        for number in IGNORED_BY_PYTHON:  # not before: a server that dies now must not take us with it
            _signal.signal(number, _signal.SIG_DFL)
        execute(plan["argv"], plan["env"], plan["search_path"])
    except Trouble as trouble:
        tell(*trouble.args)
    except Exception as error:  # noqa: BLE001 - whatever it is, silence would mean that the application runs
        tell("resources", f"it could not be prepared: {getattr(error, 'strerror', None) or error!r}")
    os._exit(1)


def tell(word: str, text: str) -> None:
    """Tell why the application is not started, in no more than a line of the protocol has room for."""
    try:
        os.write(TROUBLE, marshal.dumps((word, text[:TOLD])))
    except OSError:
        pass  # the server is gone


def tell_about_to() -> None:
    """Tell that what ends from here on is the application."""
    try:
        os.write(TROUBLE, ABOUT_TO)
    except OSError:
        pass  # the server went after it had said `go`: the run is on record, and the next one finds it


def join() -> None:
    """Enter the cgroup of the run, so that nothing of it ever runs outside."""
    try:
        os.write(JOIN, b"0")
    except OSError as error:
        raise Trouble("resources", f"its cgroup cannot be entered: {error.strerror}") from None
    os.close(JOIN)


def limit(limits: dict[str, tuple[int, int]]) -> None:
    """Set the limits of resources, soft and hard, -1 for none."""
    import resource  # noqa: PLC0415 - only where it is needed

    for name, (soft, hard) in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None and name == "locks":
            number = 10  # that of Linux, which Python does not name
        if number is None:
            raise Trouble("not-permitted", f"this guest knows no limit {name}")
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError, OverflowError) as error:
            text = f"the limit {name} cannot be set to {soft} and {hard}: {error}"
            raise Trouble("not-permitted", text) from None


def own_output(rights: tuple[int, int, list[int]] | None) -> None:
    """Give stdout and stderr to the application's user, so that it may open /dev/stdout like any program."""
    if rights is None or os.getuid() != 0:
        return
    for descriptor in (1, 2):
        if os.fstat(descriptor).st_mode & KIND == FIFO:
            os.fchown(descriptor, rights[0], rights[1])


def rights_of(user: str | None, group: str | None) -> tuple[int, int, list[int]] | None:
    """Return the numbers of the user, of its group, and of all its groups; None if they are to stay as they are."""
    if user is None and group is None:
        return None
    uid, gid, groups = os.getuid(), os.getgid(), None
    if user is not None:
        uid, gid, groups = account(user)
    if group is not None:
        gid = group_number(group)
    if (uid, gid) == (os.getuid(), os.getgid()) and os.getuid() != 0:
        return None
    return uid, gid, [gid] if groups is None else sorted({gid, *groups})


def become(rights: tuple[int, int, list[int]] | None, who: str) -> None:
    """Take on the user with all its groups, and the group."""
    if rights is None:
        return
    uid, gid, groups = rights
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError:
        raise Trouble("not-permitted", f"the server may not run it as {who}: it is not run by root") from None


def confined(rights: tuple[int, int, list[int]] | None) -> "Callable[[], None]":
    """Return how to give up what a confined server hands on to us, once we are the user: the right to inherit it.

    Nothing is run as root for it: that would be a root without powers.
    """
    import ctypes  # noqa: PLC0415 - it costs as much as all the rest; and now, as the user may not read our Python

    if rights is None or rights[0] == 0:
        raise Trouble("not-permitted", NOT_AS_ROOT)
    capset = ctypes.CDLL(None).capset

    def lay_down() -> None:
        if capset(CAPABILITIES.to_bytes(4, sys.byteorder) + bytes(4), bytes(24)) != 0:
            raise Trouble("not-permitted", "the server's own rights cannot be given up")

    return lay_down


def account(user: str) -> tuple[int, int, list[int]]:
    """Return the user's number, its group's, and those of all its groups."""
    import pwd  # noqa: PLC0415 - only where it is needed

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):  # ValueError: thousands of digits
        raise Trouble("no-such-user", f"there is no user {user}") from None
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


def group_number(group: str) -> int:
    """Return the group's number."""
    import grp  # noqa: PLC0415 - only where it is needed

    try:
        return (grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)).gr_gid
    except (KeyError, OverflowError, ValueError):  # ValueError: thousands of digits
        raise Trouble("no-such-user", f"there is no group {group}") from None


def enter(folder: str) -> None:
    """Enter the working folder, with the rights of the application's user."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise Trouble("no-such-directory", f"the folder {folder} cannot be entered: {error.strerror}") from None


def execute(argv: list[str], env: dict[str, str], search_path: str) -> None:
    """Become the command, which is looked up like a shell would if it has no slash; tell why it cannot be."""
    command = argv[0]
    paths = [command] if command else []
    if command and "/" not in command:
        paths = [os.path.join(folder, command) for folder in env.get("PATH", search_path).split(":")]
    found = None
    for path in paths:
        try:
            os.execve(path, argv, env)  # noqa: S606 - no shell is the point
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(path):
                found = f"{path} needs an interpreter that is not there"
        except OSError as error:
            if error.errno in SCARCE:
                raise
            if path is command or os.path.lexists(path):  # a folder of the path may be closed to the user
                found = f"{path} is a folder" if os.path.isdir(path) else f"{path}: {error.strerror}"
    if found is not None:
        raise Trouble("not-executable", found)
    where = "" if "/" in command else f" along {env.get('PATH', search_path)}"
    raise Trouble("not-found", f"there is no command {command}{where}")


if __name__ == "__main__":
    main()
