"""Launches of units: how they are named, asked for, allowed, refused and remembered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import checks
from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.charge import Facts
from cmapp.core.lifecycle import Event
from cmapp.core.options import settle
from cmapp.core.outcome import Exited, Reason, Receipt, describe
from cmapp.core.policy import Allowed, Denied
from cmapp.core.rules import HealthRules, Kind, Probe, ReadyRules, StopRules
from cmapp.core.unitname import application_name, full_name, unit
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from cmapp.host.task import lacking, name_of, task_of
from tests.core.policy_bed import policy_of
from tests.core.roster_bed import BOOT, Bed, run_id

RUN = run_id(1)
DATABASE = "postgresql@15-main.service"
POLICY = """
[[allow]]
managers = "vmhost1"
units = ["postgresql@*.service", "cron.service"]
commands = "/usr/bin/pg_isready ..."
users = ["postgres", "nobody"]
applications = "db"

[application.db]
unit = "postgresql@15-main"
health_command = "/usr/bin/pg_isready -q"
stop_timeout = "5m"
"""
OPEN = ""


def launch(**fields: Any) -> m.Launch:
    """Return a launch of a unit, unless another is said."""
    return m.Launch(1, "db", RUN, **{"unit": DATABASE, **fields})


def task(**given: Any) -> m.Launch:
    """Return the launch that cmappmgr makes of its options."""
    settings: Settings = settle(Settings, ("the command line", given))
    return task_of(settings, "vm1", given.pop("command", []), RUN).launch


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "whole", "name"),
    [
        (DATABASE, DATABASE, "postgresql@15-main"),
        ("cron", "cron.service", "cron"),
        ("a.b", "a.b.service", "a.b"),
        ("a\\x2db:c.service", "a\\x2db:c.service", "a_x2db_c"),
        ("x" * 247, f"{'x' * 247}.service", "x" * 64),
    ],
)
def test_a_units_name_makes_the_applications(said: str, whole: str, name: str) -> None:
    """As systemctl takes it, and as an application may be called."""
    assert full_name(said) == whole
    assert application_name(whole) == checks.name(name)
    assert task(unit=said).name == name


@pytest.mark.parametrize("wrong", ["cron.socket", "getty@", ".x", "-x", "@x", "a b", "ü", "a/b", "x" * 256, 7, None])
def test_what_is_no_service_is_refused(wrong: Any) -> None:
    """Another kind of unit, a template and what is no name at all."""
    with pytest.raises(ValueError, match=r"must be|is a template"):
        full_name(wrong)


@given(st.text(st.sampled_from(sorted(checks.NAME_CHARS | set(":\\ /ü"))), max_size=20))
def test_any_name_that_is_accepted_makes_a_legal_one(text: str) -> None:
    """Whatever is accepted is whole, is accepted again, and names an application or is told to need a name."""
    try:
        whole = full_name(text)
    except ValueError:
        return
    assert unit(whole) == whole
    if whole:
        assert checks.name(application_name(whole))


# ---- what a manager asks for -------------------------------------------------------------------------------


def test_the_option_makes_a_launch() -> None:
    """A unit is named in place of a command, and has the time that its own file gives it to become ready."""
    asked = task(unit="cron", stop_timeout="5m", output="log")
    assert (asked.unit, asked.argv, asked.ready, asked.output) == ("cron.service", (), None, False)
    assert task(unit="cron", ready_timeout="5m").ready == ReadyRules(Probe.NOTIFY, timeout=300.0)
    assert task(unit="cron", ready="tcp:5432").ready == ReadyRules(Probe.TCP, target="5432")
    assert lacking(asked, []) == ["units"]
    assert lacking(asked, ["units"]) == []
    settings: Settings = settle(Settings, ("the command line", {"unit": "cron", "name": "db"}))
    assert name_of(settings, []) == "db"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"user": "postgres"}, "--user"),
        ({"env": ["A=b"], "limit": ["nofile=1"]}, "--env and --limit"),
        ({"type": "forking", "pid_file": "/run/x"}, "--type and --pid-file"),
        ({"stop_signal": "INT"}, "--stop-signal"),
        ({"watchdog_timeout": "5s"}, "--watchdog-timeout"),
        ({"command": ["x"]}, "a command"),
    ],
)
def test_what_the_units_file_says_is_not_an_option(given: dict[str, Any], named: str) -> None:
    """Two answers to one question are refused before anything is connected."""
    command = given.pop("command", [])
    settings: Settings = settle(Settings, ("the command line", {"unit": "cron", **given}))
    with pytest.raises(SettingsError) as error:
        task_of(settings, "vm1", command, RUN)
    assert str(error.value).startswith(f"--unit and {named} contradict each other")
    assert "systemctl edit cron.service" in str(error.value)


# ---- what the guest allows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (launch(), True),
        (launch(unit="cron.service"), True),
        (launch(unit="postgresql.service"), False),
        (launch(unit="ssh.service"), False),
        (launch(health=HealthRules(("/usr/bin/pg_isready", "-q"))), True),
        (launch(health=HealthRules(("/bin/rm", "-r"))), False),
        (launch(stop=StopRules(command=("/bin/rm",))), False),
        (launch(ready=ReadyRules(Probe.COMMAND, command=("/bin/rm",))), False),
    ],
)
def test_the_policy_names_units(asked: m.Launch, allowed: bool) -> None:  # noqa: FBT001 - a table
    """A unit has to fit a rule's patterns, and what the launch would have executed beside it the rule's commands."""
    assert isinstance(policy_of(POLICY).decide("vmhost1", asked), Allowed) == allowed
    assert isinstance(policy_of(POLICY).decide("vmhost2", asked), Denied)


def test_commands_beside_a_unit_are_run_as_the_rules_user() -> None:
    """The unit itself runs as its own file says, so there is no user where there is no command."""
    policy = policy_of(POLICY)
    bare = policy.decide("vmhost1", launch())
    checked = policy.decide("vmhost1", launch(health=HealthRules(("/usr/bin/pg_isready",))))
    assert isinstance(bare, Allowed)
    assert isinstance(checked, Allowed)
    assert (bare.launch.user, checked.launch.user) == (None, "postgres")


def test_a_unit_that_the_guest_defines_is_launched_by_its_name() -> None:
    """What the guest says holds; what only the unit's file says, nobody does."""
    decision = policy_of(POLICY).decide("vmhost1", m.Launch(1, "db", RUN, kind=Kind.NOTIFY))
    assert isinstance(decision, Allowed)
    made = decision.launch
    assert (made.unit, made.argv, made.kind, made.stop.timeout) == (DATABASE, (), Kind.SIMPLE, 300.0)
    assert made.health == HealthRules(("/usr/bin/pg_isready", "-q"))
    assert isinstance(policy_of(POLICY).decide("vmhost1", m.Launch(1, "db", RUN, user="root")), Denied)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('unit = "cron"\ncommand = "/bin/true"', "command and unit contradict"),
        ('unit = "cron"\nuser = "x"\nlimit = { core = "0" }', "user, limit cannot be said of a unit"),
        ('unit = "cron.timer"', "must be the name of a unit"),
        ("stop_timeout = 5", "neither a command nor a unit"),
    ],
)
def test_definitions_that_contradict_themselves_are_refused(table: str, told: str) -> None:
    """As what is wrong with a configuration file, with the application's name."""
    with pytest.raises(SettingsError) as error:
        policy_of(f"[application.x]\n{table}")
    assert str(error.value).startswith("application x: ")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("run_as", "allowed"), [((), True), (("*",), True), (("web", "root"), True), (("web",), False)]
)
def test_without_a_policy_units_are_for_those_who_may_be_root(run_as: tuple[str, ...], allowed: bool) -> None:  # noqa: FBT001 - a table
    """A unit may do anything as root: where applications may not, none is started unless a rule says so."""
    assert isinstance(policy_of(OPEN, run_as).decide("any", launch()), Allowed) == allowed


def test_units_do_not_keep_a_server_from_confining_itself() -> None:
    """A unit is started by systemd, so it asks for no power of ours; a check of one is run by us."""
    rule = "[[allow]]\nmanagers = 'a'\nunits = '*'\nusers = 'web'\n[application.x]\nunit = 'cron'\n"
    assert policy_of(rule).users == frozenset()
    assert policy_of(f"{rule}health_command = '/bin/true'").users == frozenset([""])


# ---- in the server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"argv": ("x",)}, "a command cannot be said"), ({"user": "x", "limits": {"core": (0, 0)}}, "user, limit cannot")],
)
def test_a_launch_that_contradicts_itself_is_refused(fields: dict[str, Any], told: str) -> None:
    """Another manager than ours may say it."""
    bed = Bed()
    bed.connect("a")
    said = bed.launch("a", 1, **{"argv": (), "unit": DATABASE, **fields})
    assert "unsupported" in said
    assert told in said
    assert bed.roster.charges == {}


def begun() -> Bed:
    """Return a server that was asked to launch a unit, which was launched."""
    bed = Bed()
    bed.connect("a")
    bed.launch("a", 1, argv=(), unit=DATABASE)
    return bed


def test_a_unit_is_ready_when_that_is_told_and_has_no_time_of_ours() -> None:
    """The lifecycle waits for systemd's word, however long that takes."""
    bed = begun()
    run = bed.run(1)
    assert run.says_ready
    assert not run.ready
    bed.wait(3600.0)
    assert bed.run(1).reason is Reason.ITSELF
    bed.happen(1, Event.READY)
    assert bed.run(1).ready


def test_the_invocation_is_remembered() -> None:
    """The next server is told which start is meant, and whether its end was told."""
    bed = begun()
    bed.carry_out(bed.roster.identified(RUN, 312, "ab" * 16))
    facts = Facts(bed.files[1], settled=False)
    assert (facts.pid, facts.invocation, facts.launch.unit) == (312, "ab" * 16, DATABASE)
    (adopt,) = [one for one in taken_over(bed) if isinstance(one, do.Adopt)]
    assert (adopt.invocation, adopt.over) == ("ab" * 16, False)
    bed.happen(1, Event.LEADER_ENDED, outcome=Exited(3), detail="so systemd says")
    (adopt,) = [one for one in taken_over(bed) if isinstance(one, do.Adopt)]
    assert adopt.over


def taken_over(bed: Bed) -> list[do.Effect]:
    """Return what the next server would do."""
    from cmapp.core.roster import Roster  # noqa: PLC0415 - of no use elsewhere

    roster = Roster(BOOT, most=5, receipts=5, retention=5.0)
    return roster.load([Facts(bed.files[1], settled=False)], 100.0, 100.0)


def test_what_systemd_says_of_the_end_is_in_the_receipt() -> None:
    """It is told with the outcome, unless there is a reason of ours for it."""
    bed = begun()
    bed.happen(1, Event.LEADER_ENDED, outcome=Exited(3), detail="so systemd says")
    (told,) = bed.receipts(1)
    assert told["detail"] == "so systemd says"
    receipt = Receipt("db", RUN, Exited(3), Reason.ITSELF, 0.0, 1.0, 1.0, detail="so systemd says")
    assert describe(receipt) == "exited with code 3 after 1 s (so systemd says)"
    bed = begun()
    bed.stop("a")
    bed.happen(1, Event.LEADER_ENDED, outcome=Exited(3), detail="so systemd says")
    bed.happen(1, Event.TREE_EMPTY)
    (told,) = bed.receipts(1)
    assert "detail" not in told
