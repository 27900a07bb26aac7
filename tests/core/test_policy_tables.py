"""The tables of a policy, as a configuration file has them: what is wrong with them is told with its place."""

from __future__ import annotations

import tomllib

import pytest

from cmapp.core.policy import applications, rules
from cmapp.errors import SettingsError
from tests.core.policy_bed import RULES, policy_of

WRONG = {
    "no list of rules": ("allow = 1", "allow must be at most 1000 tables, each under [[allow]]"),
    "a rule that is none": ("allow = [1]", "allow, rule 1: must be a table"),
    "no managers": ("[[allow]]\nnames = 'x'", "allow, rule 1: Rule needs managers"),
    "an unknown key": ("[[allow]]\nmanagers = 'x'\ncommand = 'y'", "allow, rule 1: there is no key 'command'; there"),
    "a number for a pattern": ("[[allow]]\nmanagers = 5", "allow, rule 1: managers: must be a list"),
    "a number in a command": ("[[allow]]\nmanagers = 'x'\ncommands = [['a', 1]]", "commands: must be a string"),
    "an empty command": ("[[allow]]\nmanagers = 'x'\ncommands = [[]]", "commands: must be a list of 1 to"),
    "an open quote": ("[[allow]]\nmanagers = 'x'\ncommands = \"'a\"", "allow, rule 1: commands: is wrong"),
    "a flag for a number": ("[[allow]]\nmanagers = 'x'\nmost = true", "most: must be a whole number from 1 to"),
    "no tables of applications": ("application = 1", "application must be at most 1000 tables"),
    "an application without a table": ("application.x = 1", "application x: must be a table"),
    "an application without a command": (
        "[application.x]\nuser = 'y'",
        "application x: there is neither a command nor a unit",
    ),
    "a name that is none": ("[application.'-x']\ncommand = 'y'", "application '-x': the name must be made of"),
    "a key of a manager": ("[application.x]\ncommand = 'y'\nlink_timeout = 1", "there is no key 'link_timeout'"),
    "a bad value": ("[application.x]\ncommand = 'y'\numask = '9'", "application x: umask: must be a whole number"),
    "a bad probe": ("[application.x]\ncommand = 'y'\nready = 'tcp:'", "application x: ready: is wrong"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_wrong_tables(text: str, said: str) -> None:
    """What is wrong with a table is told, with where it is."""
    with pytest.raises(SettingsError) as error:
        policy_of(text)
    assert said in str(error.value)


def test_tables_stay_what_they_are() -> None:
    """What was made of a table is accepted again, as settings are checked whenever they are copied."""
    tables = tomllib.loads(RULES)
    made, defined = rules(tables["allow"]), applications(tables["application"])
    assert (rules(made), applications(defined)) == (made, defined)
    assert all(rule.replace() == rule for rule in made)
