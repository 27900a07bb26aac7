"""What is different between two configurations of a cluster, in words: by resource, not by lines of XML.

The invariant: two configurations of which nothing is told mean the same to Pacemaker, as far as resources, constraints,
tags and properties go.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree import ElementTree as ET

    Facts = dict[str, dict[str, str]]

CLUSTER = "the cluster"
NOTHING = "(none)"
_INDENT = "    "


def changes(before: ET.Element, after: ET.Element) -> list[str]:
    """Return what makes `after` of `before`, a heading for each thing and a line for each value below it."""
    old, new = facts(before), facts(after)
    lines: list[str] = []
    for subject in [*new, *(subject for subject in old if subject not in new)]:
        lines += _lines(subject, old.get(subject, {}), new.get(subject, {}))
    return lines


def facts(cib: ET.Element) -> Facts:
    """Return what a configuration says, as values by their labels by what they are of."""
    told: Facts = {}
    for subject, label, value in (*_resources(cib), *_constraints(cib), *_others(cib)):
        told.setdefault(subject, {})[label] = value
    return told


def _lines(subject: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    if old == new:
        return
    if "agent" in old and "agent" not in new:
        yield f"{subject} is stopped and removed"
        shown = [label for label in old if label.startswith("constraint ")]
    else:
        yield f"{subject} is new" if not old else f"{subject} changes"
        shown = [label for label in {**new, **old} if old.get(label) != new.get(label)]
    for label in shown:
        now, then = new.get(label, NOTHING), old.get(label, NOTHING)
        yield f"{_INDENT}{label}: {now}" if label not in old else f"{_INDENT}{label}: {then} -> {now}"


def _resources(cib: ET.Element) -> Iterator[tuple[str, str, str]]:
    for resource in cib.iterfind("configuration/resources//primitive"):
        ident = resource.attrib["id"]
        words = (resource.get("class"), resource.get("provider"), resource.get("type"))
        yield ident, "agent", ":".join(word for word in words if word)
        for pair in resource.iterfind("instance_attributes/nvpair"):
            yield ident, f"parameter {pair.get('name')}", pair.get("value", "")
        for pair in resource.iterfind("meta_attributes/nvpair"):
            yield ident, str(pair.get("name")), pair.get("value", "")
        for action in resource.iterfind("operations/op"):
            what = {key: value for key, value in action.attrib.items() if key not in ("id", "name")}
            if what.get("interval") == "0":
                del what["interval"]
            yield ident, f"action {action.get('name')}", _pairs(what)


def _constraints(cib: ET.Element) -> Iterator[tuple[str, str, str]]:
    for item in cib.iterfind("configuration/constraints/*"):
        ident = item.get("id", "")
        subject = item.get("rsc") or item.get("then") or ident
        if item.tag == "rsc_location" and item.get("node") and "-prefers." in ident:
            yield subject, f"points on {item.get('node')}", item.get("score", "")
        elif item.tag == "rsc_location" and ident.endswith(("-hosts", "-hosts.others")):
            label = "may run on" if ident.endswith("-hosts") else "is not looked for on any host but"
            yield subject, label, ", ".join(_named(item))
        elif item.tag == "rsc_order" and ident.endswith(".vm"):
            yield subject, "is started after", str(item.get("first"))
        elif item.tag == "rsc_colocation" and ident.endswith(".vm"):
            yield subject, "is where there is", str(item.get("with-rsc"))
        else:
            what = {key: value for key, value in item.attrib.items() if key not in ("id", "rsc", "then")}
            rules = [_rule(rule) for rule in item.findall("rule")]
            parts = [
                f"{inner.get('name') or inner.tag} {inner.get('id', '')}"
                for inner in item.iter()
                if inner.tag == "resource_ref"
            ]
            yield subject, f"constraint {ident}", "; ".join(part for part in (_pairs(what), *rules, *parts) if part)


def _named(item: ET.Element) -> Iterator[str]:
    """Yield the hosts that the rule of a package names, or the rule if it is not as a package has it."""
    for rule in item.findall("rule"):
        tests = rule.findall("expression[@attribute='#uname']")
        if len(tests) == len(rule) and rule.get("score") in ("0", "-INFINITY"):
            yield from (test.get("value", "") for test in tests)
        else:
            yield _rule(rule)


def _rule(rule: ET.Element) -> str:
    """Return a rule of where something may run, such as `-INFINITY if #uname ne n1 and #uname ne n2`."""
    tests = [f"{test.get('attribute', test.tag)} {test.get('operation')} {test.get('value', '')}" for test in rule]
    join = f" {rule.get('boolean-op', 'and')} "
    return f"{rule.get('score') or rule.get('score-attribute')} if {join.join(tests)}"


def _others(cib: ET.Element) -> Iterator[tuple[str, str, str]]:
    for tag in cib.iterfind("configuration/tags/tag"):
        yield tag.attrib["id"], "resources", ", ".join(item.attrib["id"] for item in tag)
    for pair in cib.iterfind("configuration/crm_config/cluster_property_set/nvpair"):
        yield CLUSTER, str(pair.get("name")), pair.get("value", "")


def _pairs(values: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
