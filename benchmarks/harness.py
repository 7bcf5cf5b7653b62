"""Runs the sides of a benchmark in turn and prints their ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

from attrs import frozen


@frozen
class Side:
    """One way of doing the measured work.

    Attributes:
        name: What the table calls it.
        run: Does the work once.
        limit: Whether it is the floor that nothing of this shape gets below.
    """

    name: str
    run: Callable[[], object]
    limit: bool = False


def compare(title: str, sides: list[Side], *, units: int, unit: str, rounds: int = 15) -> dict[str, float]:
    """Run every side in turn, `rounds` times after one warm-up, and print medians of CPU time.

    The ratio of two sides is the median of their ratios round by round, so a machine that drifts between
    rounds moves both.

    Args:
        title: The question.
        sides: The first one is ours; the others are what it is measured against.
        units: How many units of work one run does.
        unit: What a unit is called.
        rounds: Counted rounds.

    Returns:
        The ratio of our side to each other side, by its name.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(rounds + 1):
        # Who goes first alternates, so that neither side always inherits the other's caches and garbage.
        for side in sides if turn % 2 else reversed(sides):
            gc.collect()
            start = time.process_time()
            side.run()
            elapsed = time.process_time() - start
            if turn:
                times[side.name].append(elapsed / units * 1e6)
    ours = sides[0]
    print(f"\n{title}  (median CPU of {rounds} rounds)")
    print(f"  {'':44}{'µs per ' + unit:>18}{'ours / it':>12}")
    ratios = {}
    for side in sides:
        ratio = statistics.median(a / b for a, b in zip(times[ours.name], times[side.name], strict=True))
        if side is not ours:
            ratios[side.name] = ratio
        note = "  <- the limit" if side.limit else ""
        shown = "" if side is ours else f"{ratio:.3f}"
        print(f"  {side.name:44}{statistics.median(times[side.name]):18.1f}{shown:>12}{note}")
    return ratios
