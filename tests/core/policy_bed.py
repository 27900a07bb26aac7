"""A policy with all that a policy can have, for the tests that ask it."""

from __future__ import annotations

import tomllib

from cmapp.core.policy import Policy, applications, rules

RULES = """
[[allow]]
name = "databases"
managers = ["vmhost1", "vmhost2"]
names = "db-*"
commands = ["/usr/bin/redis-server /etc/redis/*.conf", "/usr/bin/redis-cli ...", ["/bin/echo", "a b"]]
users = ["redis", "app-*"]
groups = "redis"
env = ["LANG", "LC_*"]
most = 3
see = "vmhost?"

[[allow]]
managers = "vmhost*"
applications = ["mail", "web-*"]

[[allow]]
name = "root's own"
managers = "trusted"
commands = "..."
users = "*"

[application.mail]
command = "/usr/sbin/postfix start-fg"
user = "root"
type = "notify"
stop_signal = "INT"

[application.web-1]
command = ["/usr/sbin/nginx", "-g", "daemon off;"]
user = "www-data"
env = { LANG = "C" }
limit = { nofile = "4096" }
ready = "tcp:80"
health_command = "/usr/bin/curl -fsS http://localhost/"
stop_command = "/usr/sbin/nginx -s quit"

[application.alone]
command = "/bin/true"
"""


def policy_of(text: str, run_as: tuple[str, ...] = ()) -> Policy:
    """Return the policy of a configuration file."""
    tables = tomllib.loads(text)
    return Policy(rules(tables.get("allow", [])), applications(tables.get("application", {})), run_as)
