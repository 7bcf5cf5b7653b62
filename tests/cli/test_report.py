"""`report`: a page of what users own and what changed."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cli_support import Server
from phygitals_async import Inventory, Item, PhygitalsClient, Request, Response, build_converter
from phygitals_async.cli._endings import Exit
from phygitals_async.cli._report_facts import read_facts
from phygitals_async.cli._report_page import render
from phygitals_async.models import Content, Metadata
from phygitals_async.refresh import ChangeKind, MemoryStore, refresh
from phygitals_transports import MemoryTransport
from support import last_segment

NOW = datetime(2026, 4, 18, 12, tzinfo=UTC)


def card(name: str, price: str, *, ends: timedelta | None = None) -> Item:
    """Return a card whose offer ends so long after now, or never."""
    return Item(
        id=name,
        claw_id="pack",
        buyback_price=Decimal(price),
        purchased_at=NOW - timedelta(days=1),
        buyback_expires_at=None if ends is None else NOW + ends,
        content=Content(Metadata(name)),
    )


class World:
    """What users own, day by day; one who is not in it is unknown."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.owned: dict[str, list[Item]] = {}

    def answer(self, request: Request) -> Response:
        """Answer with a user's inventory."""
        user_id = last_segment(request)
        if user_id not in self.owned:
            return Response(404, {}, b'{"error": "User not found"}')
        body = build_converter().dumps(Inventory(user_id, tuple(self.owned[user_id])))
        return Response(200, {"content-type": "application/json"}, body)

    async def run(self, name: str, *asked: str, **owned: list[Item]) -> Decimal:
        """Refresh after this is what they own, and return what the known ones' cards are worth in all."""
        self.owned = owned
        async with PhygitalsClient(MemoryTransport(self.answer), api_key="sandbox-test") as api:
            await refresh(api, [*owned, *asked], self.store, run=name)
        return sum((item.buyback_price for items in owned.values() for item in items), Decimal(0))


@pytest.mark.anyio
async def test_what_was_owned_after_each_run() -> None:
    """Users who come late, go, come back, and were strangers first, with every kind of change in between."""
    world = World()
    values = [
        await world.run(
            "a", "late", "back", "odd", ann=[card("1", "1.10")], bob=[card("2", "20")], gone=[card("3", "5")]
        ),
        await world.run(
            "b", "gone", "odd", ann=[card("1", "1.30")], bob=[card("2", "20"), card("4", "7")], back=[card("5", "100")]
        ),
        await world.run("c", "back", "gone", "stranger", ann=[], bob=[card("4", "8")], late=[card("6", "1000")]),
        await world.run(
            "d",
            "gone",
            ann=[card("7", "0.01")],
            bob=[card("4", "8")],
            late=[card("6", "900"), card("8", "3")],
            back=[card("5", "120"), card("9", "1")],
            stranger=[card("10", "4000")],
            odd=[],
        ),
    ]
    facts = await read_facts(world.store, NOW)
    assert [run.name for run in facts.runs] == ["a", "b", "c", "d"]
    assert list(facts.values) == values
    assert (facts.users, facts.items, facts.value) == (6, 7, values[-1])
    assert facts.kinds["b"] == Counter(
        {ChangeKind.NEW_USER: 1, ChangeKind.REPRICED: 1, ChangeKind.BOUGHT: 1, ChangeKind.UNKNOWN_USER: 1}
    )
    assert [item.id for _, _, item in facts.best][:3] == ["10", "6", "5"]


@pytest.mark.anyio
async def test_cards_that_expire_within_a_day() -> None:
    """Not those whose offer has ended, never ends, or ends later; and only the most valuable are listed."""
    world = World()
    hours = {"ended": -1, "soon": 1, "later": 23, "then": 25}
    cards = [card(name, "1", ends=timedelta(hours=count)) for name, count in hours.items()]
    many = [card(f"many-{number:02d}", str(100 + number), ends=timedelta(hours=2)) for number in range(30)]
    await world.run("a", ann=[*cards, card("never", "9999")], bob=many)
    facts = await read_facts(world.store, NOW)
    assert facts.expiring_items == 32
    assert facts.expiring_value == Decimal(2) + sum(range(100, 130))
    assert [item.id for _, _, item in facts.expiring] == [f"many-{number:02d}" for number in range(29, 9, -1)]
    assert len(facts.best) == 20
    assert facts.best[0][2].id == "never"


@pytest.mark.anyio
async def test_a_run_that_begins_meanwhile_is_left_out() -> None:
    """As the store is read, somebody refreshes: the report is of the runs before."""
    world = World()
    await world.run("a", ann=[card("1", "1")])

    class Busy(MemoryStore):
        async def runs(self, limit: int | None = None) -> Any:
            listed = await world.store.runs(limit)
            if len(listed) == 1:
                await world.run("b", ann=[card("1", "2")])
            return listed

        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__(name) if name == "runs" else getattr(world.store, name)

    facts = await read_facts(Busy(), NOW)
    assert [run.name for run in facts.runs] == ["a"]
    assert facts.kinds == {"a": Counter({ChangeKind.NEW_USER: 1})}


class Page(HTMLParser):
    """Collects what a page would fetch, and the names of its parts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: Counter[str] = Counter()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        given = {name: value or "" for name, value in attrs}
        self.ids.update([given["id"]] if "id" in given else [])
        links = [given.get(name, "") for name in ("src", "href", "xlink:href")]
        self.fetched += [link for link in links if link and not link.startswith("#")]
        assert tag not in ("script", "link", "iframe", "img")


@pytest.fixture
def store(server: Server, tmp_path: Path) -> str:
    """Refresh three times, with prices that move, and return where the store is."""
    pytest.importorskip("matplotlib", reason="not run: matplotlib is not installed")
    place = str(tmp_path / "users.db")
    server.item("ann", name="<script>alert(1)</script> & Ω $x$", price="8.50")
    (tmp_path / "ids.txt").write_text("ann\nbob\n")
    for name, factor in (("$first$ <run>", "1"), ("second", "1.5"), ("third", "2")):
        server.sandbox.options.price_factor = Decimal(factor)
        server.run("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", place, "--run", name)
    return place


def test_the_page(server: Server, store: str, tmp_path: Path) -> None:
    """It is whole, fetches nothing, and shows what names say as text."""
    output = tmp_path / "report.html"
    result = server.run("report", "--store", store, "--output", str(output))
    assert (result.exit_code, result.stdout) == (Exit.DONE, "")
    assert result.stderr == f"phygitals: written to {output}\n"
    text = output.read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert "url(http" not in text
    assert "@import" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Ω $x$" in text
    assert "USD 17.00" in text
    assert "USD 8.50" not in text
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        shown = "".join(ET.fromstring(chart).itertext())  # noqa: S314 - drawn a moment ago.
        assert "$first$ <run>" in shown
        assert "third" in shown
    assert "unknown user" in charts[1]


@pytest.mark.anyio
async def test_the_first_run_hides_nothing() -> None:
    """In it every user is new; a price that moved in the next is as high as the chart all the same."""
    pytest.importorskip("matplotlib", reason="not run: matplotlib is not installed")
    world = World()
    for name, price in (("first", "1"), ("second", "2")):
        await world.run(
            name, **{f"u{number}": [card(f"{number}", "1")] for number in range(500)}, ann=[card("a", price)]
        )
    page = render(await read_facts(world.store, NOW), NOW)
    repriced = re.findall(r'<path d="([^"]*)"[^>]*style="fill: #e9c46a"', page)
    heights = [
        max(ups) - min(ups) for ups in ([float(up) for up in re.findall(r" ([\d.]+) *\n", bar)] for bar in repriced)
    ]
    assert heights[0] == 0
    assert heights[1] > 100


def test_the_page_on_stdout(server: Server, store: str) -> None:
    """For a pipe."""
    result = server.run("report", "--store", store)
    assert result.exit_code == Exit.DONE
    assert result.stdout.startswith("<!doctype html>")


@pytest.mark.usefixtures("terminal")
def test_the_page_is_not_printed_on_a_terminal(server: Server, tmp_path: Path) -> None:
    """It says how to get it, before it reads the store."""
    result = server.run("report", "--store", str(tmp_path / "users.db"))
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert "name a file with --output, such as report.html." in result.stderr


def test_the_facts_as_json(server: Server, store: str, tmp_path: Path) -> None:
    """Without a page, or beside one."""
    result = server.run("report", "--store", store, "--json")
    facts = json.loads(result.stdout)
    assert [run["value"] for run in facts["runs"]] == [8.5, 12.75, 17]
    assert facts["runs"][1]["changes"] == {"repriced": 1}
    assert facts["runs"][0]["changes"] == {"new user": 1, "unknown user": 1}
    assert facts["best"][0]["user_id"] == "ann"
    both = server.run("report", "--store", store, "--json", "--output", str(tmp_path / "page.html"))
    assert json.loads(both.stdout) == facts
    assert (tmp_path / "page.html").exists()


@pytest.mark.anyio
async def test_many_runs_and_none() -> None:
    """A chart has room for the last sixty, and a store without a run has a page too."""
    pytest.importorskip("matplotlib", reason="not run: matplotlib is not installed")
    world = World()
    assert "<p>None.</p>" in render(await read_facts(world.store, NOW), NOW)
    for number in range(65):
        await world.run(f"run-{number:02d}", ann=[card("1", str(number))])
    page = render(await read_facts(world.store, NOW), NOW)
    assert "run-05" in page
    assert "run-04" not in page


def test_without_the_library_for_charts(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, and leaves no file."""
    place = str(tmp_path / "users.db")
    server.item("ann")
    (tmp_path / "ids.txt").write_text("ann\n")
    server.run("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", place)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    result = server.run("report", "--store", place, "--output", str(tmp_path / "page.html"))
    assert result.exit_code == Exit.USAGE
    assert "pip install 'phygitals-async[report]'" in result.stderr
    assert not (tmp_path / "page.html").exists()
