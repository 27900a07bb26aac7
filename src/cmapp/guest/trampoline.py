"""The last steps of a launched process before it becomes the application.

Run as `python -I -S -c TEXT` in a session of its own, with the plan on descriptor 3 and the way to
tell trouble on descriptor 4, which closes by itself when the application starts. Changing user and folder
here instead of in the server keeps the server's loop free: a large process that forks itself for it stands
still for 20 ms. Nothing of the package is imported, and little else, because this runs once a launch.
"""

import _signal  # type: ignore[import-not-found]  # `signal` would import enum, for a third of the time
import errno
import marshal
import os

PLAN, TROUBLE = 3, 4
TOLD = 1000  # characters
ABOUT_TO = b"+"  # without it, an end of ours that nobody foresaw would pass for the application's
SCARCE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ


class Trouble(Exception):  # noqa: N818 - a word of the house, not an error of ours
    """Why the application cannot be started: a word of the protocol's `refused`, and a sentence."""


def main() -> None:
    """Become the application, or tell why not."""
    os.set_inheritable(TROUBLE, False)
    try:
        with open(PLAN, "rb") as file:
            plan = marshal.load(file)  # noqa: S302 - written by the server that started us
        for number in IGNORED_BY_PYTHON:
            _signal.signal(number, _signal.SIG_DFL)
        restore_limit(plan["descriptors"])
        os.umask(plan["umask"])
        become(plan["user"], plan["group"])
        enter(plan["cwd"])
        os.write(TROUBLE, ABOUT_TO)
        execute(plan["argv"], plan["env"], plan["search_path"])
    except Trouble as trouble:
        tell(*trouble.args)
    except Exception as error:  # noqa: BLE001 - whatever it is, silence would mean that the application runs
        tell("resources", f"it could not be prepared: {getattr(error, 'strerror', None) or error!r}")
    os._exit(1)


def tell(word: str, text: str) -> None:
    """Tell why the application is not started, in no more than a line of the protocol has room for."""
    os.write(TROUBLE, marshal.dumps((word, text[:TOLD])))


def restore_limit(descriptors: tuple[int, int]) -> None:
    """Give the application the limit of open files that the server was started with."""
    import resource  # noqa: PLC0415 - only where it is needed

    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)


def become(user: str | None, group: str | None) -> None:
    """Take on the user with all its groups, and the group; None leaves as it is."""
    if user is None and group is None:
        return
    uid, gid, groups = os.getuid(), os.getgid(), None
    if user is not None:
        uid, gid, groups = account(user)
    if group is not None:
        gid = group_number(group)
    if (uid, gid) == (os.getuid(), os.getgid()) and os.getuid() != 0:
        return
    try:
        os.setgroups([gid] if groups is None else sorted({gid, *groups}))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError:
        who = " ".join(word for word in (user and f"user {user}", group and f"group {group}") if word)
        raise Trouble("not-permitted", f"the server may not run it as {who}: it is not run by root") from None


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
