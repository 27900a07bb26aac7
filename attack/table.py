"""The table: what was done, what became of it, and what the honest noticed beside the quiet run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from attack.judge import Deed, Meeting, Round

HEADINGS = (
    "attack",
    "count",
    "s",
    "poll p50",
    "p99",
    "ratio",
    "longest",
    "exits",
    "let in",
    "memory",
    "log",
    "outcome",
)
MEETINGS = ("hostile server", "exit code", "s", "memory", "log", "last line")
SHOWN = 150  # characters of what became of it
MILLISECONDS, MEBIBYTE, KIBIBYTE = 1000.0, float(1 << 20), 1024.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values are; not a number if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def of_rounds(rounds: Sequence[Round]) -> str:
    """Return the table of attacks; the first round is the quiet one, beside which the others stand."""
    quiet = quantile(rounds[0].polls, 0.99)
    return _drawn(HEADINGS, [_row(deed, seen, quiet) for seen in rounds for deed in seen.deeds])


def one(seen: Round) -> str:
    """Return a line for one round, before there is a table."""
    became = "; ".join(_counts(deed.outcomes) for deed in seen.deeds)
    return f"{seen.name}: {seen.seconds:.1f} s, longest poll {max(seen.polls, default=0.0):.3f} s: {became}"


def of_meetings(meetings: Sequence[Meeting]) -> str:
    """Return the table of hostile servers."""
    return _drawn(
        MEETINGS,
        [
            (
                met.name,
                str(met.code),
                f"{met.seconds:.1f}",
                f"{met.memory / MEBIBYTE:.0f} MiB",
                f"{met.log_bytes / KIBIBYTE:.0f} KiB",
                (met.log.strip().splitlines() or [""])[-1][:SHOWN],
            )
            for met in meetings
        ],
    )


def _row(deed: Deed, seen: Round, quiet: float) -> tuple[str, ...]:
    p50, p99 = quantile(seen.polls, 0.5), quantile(seen.polls, 0.99)
    told = sum(end.code == end.wanted for end in seen.exits)
    inside = [waited for waited in seen.let_in if waited is not None]
    return (
        deed.name,
        str(deed.outcomes.total()),
        f"{seen.seconds:.1f}",
        f"{p50 * MILLISECONDS:.2f} ms",
        f"{p99 * MILLISECONDS:.2f} ms",
        f"{p99 / quiet:.1f}x",
        f"{max(seen.polls, default=float('nan')) * MILLISECONDS:.0f} ms",
        f"{told}/{len(seen.exits)}",
        f"{max(inside, default=0.0):.1f} s" if len(inside) == len(seen.let_in) else "NOT",
        f"+{seen.memory / MEBIBYTE:.1f} MiB",
        f"{seen.log_bytes / KIBIBYTE:.0f} KiB",
        _counts(deed.outcomes),
    )


def _counts(outcomes: Counter[str]) -> str:
    text = ", ".join(f"{count} {what}" for what, count in outcomes.most_common())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _drawn(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    last = len(headings) - 1
    return "\n".join(
        "  ".join(
            cell if column == last else cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
