"""How far the reach for the processes of a tree goes, of either kind, before the caller looks again."""

WAITED_FOR = 64  # survivors of one tree that are waited for at once
PASSES = 5  # looks until a signal has reached those forked meanwhile
KILL_PASSES = 100  # as many for SIGKILL
