"""The guest's policy: what each rule allows, what it makes of a launch, and what it says when it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core.messages import Launch
from cmapp.core.policy import Allowed, Denied, Policy, rules
from cmapp.core.rules import HealthRules, Kind, Probe, ReadyRules, StopRules
from tests.core.policy_bed import RULES, policy_of

RUN = "9f1c2f0e-6c1b-4f43-8f0a-2f4c3b0d7a11"


def a_launch(*argv: str, name: str = "db-1", **more: Any) -> Launch:
    """Return a launch."""
    return Launch(2, name, RUN, argv, **more)


POLICY = policy_of(RULES)
REDIS = ("/usr/bin/redis-server", "/etc/redis/a.conf")
CHECK = HealthRules(("/usr/bin/redis-cli", "ping"))

# the manager, its launch, and the user that it becomes
ALLOWED = {
    "a command by its pattern": ("vmhost1", a_launch(*REDIS), "redis"),
    "another manager of the rule": ("vmhost2", a_launch(*REDIS), "redis"),
    "a user by a pattern": ("vmhost1", a_launch(*REDIS, user="app-7"), "app-7"),
    "a user by its name": ("vmhost1", a_launch(*REDIS, user="redis"), "redis"),
    "a group": ("vmhost1", a_launch(*REDIS, group="redis"), "redis"),
    "an environment": ("vmhost1", a_launch(*REDIS, env={"LANG": "C", "LC_ALL": "C"}), "redis"),
    "a health command of its own": ("vmhost1", a_launch(*REDIS, health=CHECK), "redis"),
    "a stop command of its own": ("vmhost1", a_launch(*REDIS, stop=StopRules(command=CHECK.command)), "redis"),
    "a word with a blank": ("vmhost1", a_launch("/bin/echo", "a b"), "redis"),
    "what needs no right": ("vmhost1", a_launch(*REDIS, cwd="/srv", umask=0o077, takeover=True, output=True), "redis"),
    "any command as any user": ("trusted", a_launch("/bin/sh", "-c", "id", name="x", user="root"), "root"),
    "any command as nobody in particular": ("trusted", a_launch("/bin/sh", name="x"), None),
    "an application of the guest": ("vmhost9", a_launch(name="mail"), "root"),
    "a later rule of the same manager": ("vmhost1", a_launch(name="web-1"), "www-data"),
}

# the manager, its launch, and what the guest's log says of it
DENIED = {
    "a manager that no rule names": ("stranger", a_launch(*REDIS), "no rule names that manager"),
    "a manager by part of its name": ("xvmhost1", a_launch(*REDIS), "no rule names that manager"),
    "another command": (
        "vmhost1",
        a_launch("/bin/sh", "-c", "id"),
        "rule 1 (databases): it has no such command: /bin/sh -c id; rule 2: it has no such command: /bin/sh -c id",
    ),
    "one word more": ("vmhost1", a_launch(*REDIS, "--x"), "rule 1 (databases): it has no such command"),
    "a file elsewhere": (
        "vmhost1",
        a_launch(REDIS[0], "/etc/redis/../x.conf"),
        "it has no such command: /usr/bin/redis-server /etc/redis/../x.conf",
    ),
    "another name": ("vmhost1", a_launch(*REDIS, name="web"), "it is not for an application called web"),
    "another user": ("vmhost1", a_launch(*REDIS, user="root"), "user root is not among its users, redis, app-*"),
    "a user by number": ("vmhost1", a_launch(*REDIS, user="0"), "user 0 is not among its users"),
    "no user at all": ("vmhost1", a_launch(*REDIS, user=""), "user  is not among its users"),
    "another group": ("vmhost1", a_launch(*REDIS, group="disk"), "group disk is not among its groups, redis"),
    "another variable": (
        "vmhost1",
        a_launch(*REDIS, env={"LD_PRELOAD": "/x.so"}),
        "variable LD_PRELOAD is not among those of its env, LANG, LC_*",
    ),
    "a variable where none is allowed": (
        "trusted",
        a_launch("/bin/true", env={"A": "b"}),
        "variable A is not among those of its env, which are none",
    ),
    "a health command": (
        "vmhost1",
        a_launch(*REDIS, health=HealthRules(("/bin/sh",))),
        "it has no such command: /bin/sh",
    ),
    "a stop command": (
        "vmhost1",
        a_launch(*REDIS, stop=StopRules(command=("/bin/rm", "-r"))),
        "it has no such command: /bin/rm -r",
    ),
    "a ready command": (
        "vmhost1",
        a_launch(*REDIS, ready=ReadyRules(Probe.COMMAND, command=("/bin/x",))),
        "it has no such command: /bin/x",
    ),
    "an application that is not there": ("vmhost9", a_launch(name="web-2"), "no application web-2 is defined"),
    "an application of no rule": (
        "vmhost9",
        a_launch(name="alone"),
        "rule 2: it is not for the application alone of this guest",
    ),
    "an application by a rule of commands": ("trusted", a_launch(name="mail"), "rule 3 (root's own): it is not for"),
    "a user for an application of the guest": (
        "vmhost9",
        a_launch(name="mail", user="root"),
        "mail is defined in this guest, and a launch must not bring its own user",
    ),
    "surroundings for an application of the guest": (
        "vmhost9",
        a_launch(name="web-1", cwd="/srv", env={"A": "b"}, limits={"nofile": (1, 1)}),
        "must not bring its own cwd, env, limits",
    ),
    "a check for an application of the guest that has none": (
        "vmhost9",
        a_launch(name="mail", health=HealthRules(("/bin/sh",))),
        "it has no such command: /bin/sh",
    ),
    "its command with other words": ("vmhost9", a_launch("/bin/sh", name="mail"), "it has no such command: /bin/sh"),
}


@pytest.mark.parametrize(("manager", "launch", "user"), ALLOWED.values(), ids=ALLOWED)
def test_allowed(manager: str, launch: Launch, user: str | None) -> None:
    """What a rule names is allowed, as the user that the rule means."""
    decision = POLICY.decide(manager, launch)
    assert isinstance(decision, Allowed), decision
    assert decision.launch.user == user
    if launch.argv:
        assert decision.launch == launch.replace(user=user)


@pytest.mark.parametrize(("manager", "launch", "text"), DENIED.values(), ids=DENIED)
def test_denied(manager: str, launch: Launch, text: str) -> None:
    """What no rule names is refused, and the rule and the reason are told."""
    decision = POLICY.decide(manager, launch)
    assert isinstance(decision, Denied), decision
    assert text in decision.text
    assert not decision.unknown


def test_an_application_of_the_guest() -> None:
    """It is launched as the guest says, with what the manager may still say."""
    decision = POLICY.decide("vmhost1", a_launch(name="web-1", output=True, watchdog=5.0))
    assert decision == Allowed(
        a_launch(
            "/usr/sbin/nginx",
            "-g",
            "daemon off;",
            name="web-1",
            user="www-data",
            env={"LANG": "C"},
            limits={"nofile": (4096, 4096)},
            ready=ReadyRules(Probe.TCP, "80", timeout=60.0),
            health=HealthRules(("/usr/bin/curl", "-fsS", "http://localhost/")),
            stop=StopRules(command=("/usr/sbin/nginx", "-s", "quit")),
            output=True,
            watchdog=5.0,
        ),
        "rule 2",
        None,
    )


def test_what_the_guest_leaves_open() -> None:
    """How it is stopped and made ready is the manager's to say where the guest does not, commands excepted."""
    stop = StopRules(signal=2, timeout=5.0)
    decision = POLICY.decide("vmhost9", a_launch(name="mail", stop=stop))
    assert isinstance(decision, Allowed)
    assert decision.launch.stop == StopRules(signal=2)  # the guest says the signal, and so all of it
    assert decision.launch.kind is Kind.NOTIFY
    alone = policy_of('[application.alone]\ncommand = "/bin/true"').decide("x", a_launch(name="alone", stop=stop))
    assert isinstance(alone, Allowed)
    assert alone.launch.stop == stop


def test_a_command_of_the_guest_replaces_the_managers() -> None:
    """A manager's check of an application that has one in the guest is never run, so it is nobody's matter."""
    decision = POLICY.decide("vmhost9", a_launch(name="web-1", health=HealthRules(("/bin/sh",))))
    assert isinstance(decision, Allowed)
    assert decision.launch.health == HealthRules(("/usr/bin/curl", "-fsS", "http://localhost/"))


def test_how_many() -> None:
    """The most that a manager may have running is its rule's."""
    decision = POLICY.decide("vmhost1", a_launch(*REDIS))
    assert isinstance(decision, Allowed)
    assert (decision.most, decision.rule) == (3, "rule 1 (databases)")


SEEN = [
    ("vmhost1", "vmhost1", True),
    ("vmhost1", "vmhost2", True),
    ("vmhost1", "trusted", False),
    ("vmhost9", "vmhost1", False),
    ("stranger", "stranger", True),
    ("trusted", "vmhost1", False),
]


@pytest.mark.parametrize(("manager", "owner", "seen"), SEEN)
def test_what_is_seen(manager: str, owner: str, *, seen: bool) -> None:
    """A manager sees its own runs, and those of others only where a rule says so."""
    assert POLICY.sees(manager, owner) is seen


TAKEN = [
    ("vmhost2", a_launch(*REDIS, user="redis"), True),
    ("vmhost9", a_launch(*REDIS, user="redis"), False),
    ("trusted", a_launch(*REDIS, user="redis"), True),
    ("vmhost9", a_launch("/usr/sbin/postfix", "start-fg", name="mail", user="root"), True),
    ("stranger", a_launch("/usr/sbin/postfix", "start-fg", name="mail", user="root"), False),
]


@pytest.mark.parametrize(("manager", "launch", "may"), TAKEN)
def test_who_may_take_a_run_over(manager: str, launch: Launch, *, may: bool) -> None:
    """A run is taken over by those who might launch the same themselves."""
    assert POLICY.may_take(manager, launch) is may


# the settings, the launch, and the user that it becomes; "" if it is refused
OPEN: list[tuple[tuple[str, ...], Launch, str | None]] = [
    ((), a_launch("x"), None),
    ((), a_launch("x", user="redis"), ""),
    ((), a_launch("x", group="redis"), ""),
    ((), a_launch("x", env={"PATH": "/bin"}), None),
    (("redis",), a_launch("x"), "redis"),
    (("redis",), a_launch("x", user="redis"), "redis"),
    (("redis",), a_launch("x", user="root"), ""),
    (("redis", "root"), a_launch("x", user="root"), "root"),
    (("*",), a_launch("x"), None),
    (("*",), a_launch("x", user="root", group="wheel"), "root"),
    (("root", "*"), a_launch("x"), "root"),
]


@pytest.mark.parametrize(("run_as", "launch", "user"), OPEN)
def test_without_a_policy(run_as: tuple[str, ...], launch: Launch, user: str | None) -> None:
    """Any manager may launch any command, but never as another user than the settings say."""
    decision = Policy(run_as=run_as).decide("anybody", launch)
    if user == "":
        assert isinstance(decision, Denied)
        assert "no policy is written" in decision.text
    else:
        assert isinstance(decision, Allowed)
        assert decision.launch == launch.replace(user=user)


def test_without_a_policy_an_application_may_be_unknown() -> None:
    """There is nothing to keep secret, so that is said to the manager."""
    decision = Policy().decide("anybody", a_launch(name="web"))
    assert decision == Denied("no application web is defined in this guest", unknown=True)


def test_without_a_policy_applications_may_be_defined() -> None:
    """They are for everybody."""
    decision = policy_of('[application.web]\ncommand = "nginx"').decide("anybody", a_launch(name="web"))
    assert isinstance(decision, Allowed)
    assert decision.launch.argv == ("nginx",)


USERS: list[tuple[str, tuple[str, ...], frozenset[str] | None]] = [
    ("", (), frozenset({""})),
    ("", ("redis",), frozenset({"redis"})),
    ("", ("*",), None),
    (RULES, (), None),
    ('[[allow]]\nmanagers="a"\ncommands="x"', (), frozenset({""})),
    ('[[allow]]\nmanagers="a"\ncommands="x"\nusers=["u","v"]', ("w",), frozenset({"u", "v"})),
    (
        '[[allow]]\nmanagers="a"\napplications="x"\n[application.x]\ncommand="x"\nuser="db"',
        (),
        frozenset({"db"}),
    ),
    ('[[allow]]\nmanagers="a"\napplications="x"\n[application.x]\ncommand="x"', (), frozenset({""})),
]


@pytest.mark.parametrize(("text", "run_as", "users"), USERS)
def test_users(text: str, run_as: tuple[str, ...], users: frozenset[str] | None) -> None:
    """The users that anything may ever run as are known, or known to be any."""
    assert policy_of(text, run_as).users == users


def test_it_tells_what_holds() -> None:
    """The log says at the start who may do what, most of all where nothing is written."""
    assert str(Policy()) == (
        "no policy is written: every manager of the trusted authority may launch any command, as the server's own user"
        " only"
    )
    assert str(Policy(run_as=("redis", "root"))).endswith("as redis, root")
    assert str(Policy(run_as=("*",))).endswith("as any user")
    assert str(POLICY) == "rules of this guest's policy: 3, applications that it defines: 3"


words = st.text(st.sampled_from("ab/.*\n\0"), min_size=1, max_size=6).filter(
    lambda word: "\0" not in word and word != "..."
)


@given(st.lists(words, min_size=1, max_size=3), st.lists(words, min_size=1, max_size=3), st.sampled_from("ab/.\n"))
def test_a_refusal_stays_one(pattern: list[str], argv: list[str], more: str) -> None:
    """Rules of literal words allow these words and nothing that looks like them."""
    literal = [word.replace("*", "x") for word in pattern]
    policy = Policy(rules([{"managers": "m", "commands": [literal]}]))
    for asked in (argv, [*argv, more], [*argv[:-1], argv[-1] + more]):
        decision = policy.decide("m", a_launch(*asked))
        assert isinstance(decision, Allowed) is (asked == literal)
