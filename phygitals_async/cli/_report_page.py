"""A report as one HTML page that needs nothing else: styles and charts are in it, and nothing is fetched."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

from phygitals_async._extras import load
from phygitals_async.cli._endings import plain
from phygitals_async.cli._output import moment, usd
from phygitals_async.cli._report_facts import Facts, Owned
from phygitals_async.refresh import ChangeKind

# More runs than these are not told apart in a chart.
_RUNS: Final = 60
# The names of more are not read side by side.
_LABELS: Final = 10
# The first run finds every user new: on one axis, those would hide what the later runs found.
_CHARTS: Final = (
    {ChangeKind.BOUGHT: "#2a9d8f", ChangeKind.GONE: "#e76f51", ChangeKind.REPRICED: "#e9c46a"},
    {ChangeKind.NEW_USER: "#457b9d", ChangeKind.UNKNOWN_USER: "#8d99ae"},
)
_KINDS: Final = [kind for colours in _CHARTS for kind in colours]
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
dl { display: flex; flex-wrap: wrap; gap: 1rem 3rem; } dt { color: #666; } dd { margin: 0; font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem; }
tr + tr { border-top: 1px solid #ddd; } .right { text-align: right; } svg { max-width: 100%; height: auto; }
"""


def render(facts: Facts, made_at: datetime) -> str:
    """Return the page.

    Raises:
        ConfigurationError: The library for charts is not installed.
    """
    names = [run.name for run in facts.runs][-_RUNS:]
    totals = [
        ("users", f"{facts.users:,}"),
        ("items", f"{facts.items:,}"),
        ("value owned", f"USD {usd(facts.value)}"),
        ("offers ending within 24 h", f"{facts.expiring_items:,} (USD {usd(facts.expiring_value)})"),
    ]
    parts = [
        f"<h1>What users own</h1><p>{moment(made_at)} UTC, after {len(facts.runs):,} runs</p>",
        "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in totals) + "</dl>",
        "<h2>Value owned after each run, USD</h2>",
        _value_chart(names, facts),
        "<h2>Changes found by each run</h2>",
        _change_chart(names, facts),
        _change_table(names, facts),
        "<h2>Most valuable cards</h2>",
        _cards(facts.best),
        "<h2>Offers that end within 24 hours</h2>",
        _cards(facts.expiring),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>What users own</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _value_chart(names: Sequence[str], facts: Facts) -> str:
    figure, (axes,) = _figure(3.2)
    values = [float(value) for value in facts.values[-_RUNS:]]
    axes.plot(range(len(names)), values, marker="o", color="#2a9d8f")
    axes.set_ylim(0, _top(values))
    return _svg(figure, axes, names, "Value owned after each run")


def _change_chart(names: Sequence[str], facts: Facts) -> str:
    figure, charts = _figure(3.2, 1.8)
    for axes, colours in zip(charts, _CHARTS, strict=True):
        below = [0] * len(names)
        for kind, colour in colours.items():
            counts = [facts.kinds[name][kind] for name in names]
            axes.bar(range(len(names)), counts, bottom=below, color=colour, label=str(kind))
            below = [so_far + count for so_far, count in zip(below, counts, strict=True)]
        axes.set_ylim(0, _top(below))
        axes.legend(frameon=False, ncols=len(colours), loc="lower left", bbox_to_anchor=(0, 1))
    return _svg(figure, charts[-1], names, "Changes found by each run")


def _top(heights: Sequence[float]) -> float:
    """Return where an axis ends: over the highest, with room for a marker."""
    return max([1.0, *heights]) * 1.05


def _figure(*heights: float) -> tuple[Any, Any]:
    """Return a figure, and charts one below the other with an axis of runs in common, so many inches high."""
    figure = load("matplotlib.figure", "report").Figure(figsize=(9, sum(heights)), layout="constrained")
    charts = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes in charts:
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_locator(load("matplotlib.ticker", "report").MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure, charts


def _svg(figure: Any, axes: Any, names: Sequence[str], title: str) -> str:
    """Return a chart with the runs under it, as an element of a page."""
    step = max(1, -(-len(names) // _LABELS))
    shown = range(0, len(names), step)
    # A dollar begins a formula.
    labels = [plain(names[number]).replace("$", r"\$") for number in shown]
    axes.set_xticks(list(shown), labels, rotation=20, ha="right")
    drawn = io.StringIO()
    # Texts as texts, and the same chart in the same bytes.
    with load("matplotlib", "report").rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    element = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    # Names of parts are one space in a page, and both charts have some of the same.
    prefix = title.partition(" ")[0].lower()
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    return re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL).replace(
        "<svg ", f'<svg role="img" aria-label="{title}" ', 1
    )


def _change_table(names: Sequence[str], facts: Facts) -> str:
    rows = [(name, *(f"{facts.kinds[name][kind]:,}" for kind in _KINDS)) for name in reversed(names)]
    return _table(("run", *map(str, _KINDS)), rows)


def _cards(owned: Sequence[Owned]) -> str:
    if not owned:
        return "<p>None.</p>"
    rows = [
        (usd(value), item.name, user_id, moment(item.buyback_expires_at, "never"), item.claw_slug or "")
        for value, user_id, item in owned
    ]
    return _table(("USD", "card", "owner", "offer ends, UTC", "pack"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(plain(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
