"""What does the same bulk refresh cost by each engine, against what people would use instead?

Each run is a process of its own, so that memory can be told and both event loops serve. Runs of all sides take turns;
a ratio is the median of the ratios turn by turn. The tables and the chart go into `benchmarks/README.md`, and what
the table in `docs/transports.md` shows goes into `engines.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

import pygal  # type: ignore[import-untyped]  # It comes without types.
from attrs import define, field
from pygal.style import CleanStyle  # type: ignore[import-untyped]  # It comes without types.

from benchmarks.generated import generate
from benchmarks.server import canned_server

_HERE: Final = Path(__file__).parent
_LIMITS: Final = (8, 64, 256)
_USERS: Final = {5: 2000, 50: 1000}
_TURNS: Final = 3
# Few users are enough for what takes ten times as long.
_SLOW: Final = {"generated client", "hand-written httpx", "gather + pydantic", "httpx2"}
_OURS: Final = ("aiohttp", "httpx2", "reqwest")
_SIDES: Final = (
    ("aiohttp", "asyncio"),
    ("aiohttp", "uvloop"),
    ("httpx2", "asyncio"),
    ("httpx2", "uvloop"),
    ("reqwest", "asyncio"),
    ("reqwest", "uvloop"),
    ("hand-written aiohttp", "asyncio"),
    ("hand-written aiohttp", "uvloop"),
    ("hand-written httpx", "asyncio"),
    ("gather + pydantic", "asyncio"),
    ("generated client", "asyncio"),
    ("asyncio streams", "asyncio"),
    ("asyncio streams", "uvloop"),
)


@define
class Cost:
    """What one side cost in each turn, per user.

    Attributes:
        cpu: Microseconds of CPU time, of all threads.
        rate: Users per second.
        memory: Peak resident MiB of the process.
    """

    cpu: list[float] = field(factory=list)
    rate: list[float] = field(factory=list)
    memory: list[float] = field(factory=list)


Table = dict[tuple[str, str], Cost]


def label(side: str, loop: str) -> str:
    """Return what the tables call a side."""
    ours = f"this package on {side}" if side in _OURS else side
    return f"{ours}, uvloop" if loop == "uvloop" else ours


def measure(items: int, limit: int, folder: str) -> Table:
    """Run every side in turn."""
    costs = {side: Cost() for side in _SIDES}
    with canned_server(items) as url:
        for turn in range(_TURNS):
            for side in _SIDES if turn % 2 else reversed(_SIDES):
                users = _USERS[items] // (4 if side[0] in _SLOW else 1)
                command = [sys.executable, "-m", "benchmarks.refreshes", *side, url, str(users), str(limit)]
                path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
                run = subprocess.run(
                    command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
                )
                told = json.loads(run.stdout)
                costs[side].cpu.append(told["cpu"] / users * 1e6)
                costs[side].rate.append(users / told["wall"])
                costs[side].memory.append(told["memory"])
    return costs


def ratio(costs: Table, one: tuple[str, str], other: tuple[str, str]) -> float:
    """Return how much CPU one side takes for that of another."""
    return statistics.median(a / b for a, b in zip(costs[one].cpu, costs[other].cpu, strict=True))


def rows(costs: Table) -> list[str]:
    """Return a table in Markdown, the cheapest last."""
    lines = [
        "| | CPU µs per user | of the generated client's | users per second | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    by_cost = sorted(_SIDES, key=lambda side: -statistics.median(costs[side].cpu))
    for side in by_cost:
        cost = costs[side]
        share = ratio(costs, side, ("generated client", "asyncio"))
        lines.append(
            f"| {label(*side)} | {statistics.median(cost.cpu):.0f} | {share:.2f} "
            f"| {statistics.median(cost.rate):,.0f} | {max(cost.memory):.0f} |"
        )
    return lines


def chart(by_items: dict[int, Table]) -> bytes:
    """Return a drawing of the CPU time of every side at limit 64."""
    drawing = pygal.HorizontalBar(
        style=CleanStyle, print_values=True, width=900, height=700, js=[], legend_at_bottom=True
    )
    drawing.title = "CPU per user of a bulk refresh, limit 64 (µs, less is better)"
    drawing.value_formatter = lambda value: f"{value:.0f}"
    first = next(iter(by_items.values()))
    sides = sorted(_SIDES, key=lambda side: -statistics.median(first[side].cpu))
    drawing.x_labels = [label(*side) for side in sides]
    for items, costs in by_items.items():
        drawing.add(f"{items} items a user", [statistics.median(costs[side].cpu) for side in sides])
    drawn: bytes = drawing.render()
    return drawn


def targets(costs: Table) -> list[str]:
    """Return the promises that rest on these figures, with what was measured."""
    reqwest, streams, aiohttp = ("reqwest", "uvloop"), ("asyncio streams", "uvloop"), ("aiohttp", "uvloop")
    generated = ("generated client", "asyncio")
    lines = [
        "| 5 items, limit 64, CPU per user | asked | measured |",
        "| --- | --- | --- |",
        f"| reqwest on uvloop against the streams on uvloop | at most 2.0 x | {ratio(costs, reqwest, streams):.2f} x |",
        f"| aiohttp on uvloop against reqwest on uvloop | at least 2 x | {ratio(costs, aiohttp, reqwest):.2f} x |",
    ]
    for engine in ("aiohttp", "reqwest"):
        times = ratio(costs, generated, (engine, "asyncio"))
        lines.append(f"| the generated client against this package on {engine} | at least 8 x | {times:.1f} x |")
    return lines


def shares(costs: Table) -> dict[str, dict[str, float]]:
    """Return what share each engine takes of the CPU of aiohttp on asyncio, by event loop."""
    return {
        engine: {loop: round(ratio(costs, (engine, loop), ("aiohttp", "asyncio")), 2) for loop in ("asyncio", "uvloop")}
        for engine in _OURS
    }


def write(section: list[str]) -> None:
    """Put the section into the README, between its marks."""
    readme = _HERE / "README.md"
    before, _, rest = readme.read_text().partition("<!-- engines -->\n")
    _, _, after = rest.partition("<!-- /engines -->\n")
    readme.write_text("\n".join([f"{before}<!-- engines -->", *section, f"<!-- /engines -->\n{after}"]))


def main() -> None:
    """Print the tables, and write them."""
    folder = generate()
    measured: dict[tuple[int, int], Table] = {}
    section: list[str] = []
    for items in _USERS:
        for limit in _LIMITS:
            costs = measured[items, limit] = measure(items, limit, folder)
            section += ["", f"### {items} items a user, limit {limit}", "", *rows(costs)]
            print("\n".join(section[-len(_SIDES) - 4 :]), flush=True)
    summary = targets(measured[5, 64])
    print("\n".join(["", *summary]))
    (_HERE / "engines.json").write_text(json.dumps(shares(measured[5, 64]), indent=2) + "\n")
    (_HERE / "engines.svg").write_bytes(chart({items: measured[items, 64] for items in _USERS}))
    write(["", *summary, "", "![CPU per user](engines.svg)", *section, ""])


if __name__ == "__main__":
    main()
