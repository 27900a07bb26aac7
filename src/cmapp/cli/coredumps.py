"""No core dumps of programs that hold keys: what is in their memory must not end up in a file.

The invariant: once this was called, the kernel writes no core of this process and pipes none to a collector either.
"""

from __future__ import annotations

import resource

# One byte: too little for a file, and to the kernel the sign of a process whose core goes to no collector (core(5)
# and fs/coredump.c), which it would do in spite of 0. It takes no foreign library, which PR_SET_DUMPABLE would.
_NONE = 1


def forbid() -> None:
    """Have no core written of this process, as far as the limit that it may set goes: 0 leaves collectors."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else _NONE, hard))
