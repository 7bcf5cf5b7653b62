"""Refreshes the inventories of 2,000 users over real sockets and sums up what they own.

A sandbox server is started as a separate process on a free loopback port; neither key nor network is needed.
"""

from __future__ import annotations

import asyncio
import heapq
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from phygitals_async import Failed, Found, Inventory, PhygitalsClient, PhygitalsError, UserNotFound

USERS = 2000
STRANGERS = 25
LIMIT = 64
DAY = timedelta(hours=24)


@contextmanager
def sandbox_server() -> Iterator[tuple[str, str]]:
    """Run the sandbox as its own process, giving its base URL and a key."""
    command = [sys.executable, "-m", "phygitals_async.sandbox", "--port", "0", "--users", str(USERS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed: dict[str, str] = {}
            for line in process.stdout or ():
                if line.startswith("ready"):
                    break
                name, _, value = line.partition("  ")
                printed[name] = value.split()[0]
            yield printed["base URL"], printed["API key"]
        finally:
            process.terminate()


@define
class Summary:
    """What the refresh adds up while the inventories pass by; none of them is kept."""

    now: datetime
    found: int = 0
    unknown: int = 0
    items: int = 0
    expiring: int = 0
    value: Decimal = Decimal(0)
    errors: list[PhygitalsError] = field(factory=list)
    best: list[tuple[Decimal, str, str]] = field(factory=list)

    def add(self, user_id: str, inventory: Inventory) -> None:
        """Count one user's items."""
        self.found += 1
        self.items += len(inventory.items)
        self.value += inventory.total_buyback
        for item in inventory.items:
            self.expiring += item.sellback_open(self.now) and not item.sellback_open(self.now + DAY)
        cards = [(item.buyback_price, item.name, user_id) for item in inventory.items]
        self.best = heapq.nlargest(10, [*self.best, *cards])


async def refresh(base_url: str, api_key: str, console: Console) -> tuple[Summary, float]:
    """Look every user up, showing a live progress bar; return the summary and the seconds it took."""
    ids = (f"user_{number:06d}" for number in range(USERS + STRANGERS))
    summary = Summary(datetime.now(UTC))
    columns = (TextColumn("refreshing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = time.perf_counter()
    async with PhygitalsClient(api_key=api_key, base_url=base_url) as api:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=USERS + STRANGERS)
            async with api.stream_inventories(ids, limit=LIMIT) as outcomes:
                async for outcome in outcomes:
                    match outcome:
                        case Found(user_id, inventory):
                            summary.add(user_id, inventory)
                        case Failed(_, UserNotFound()):
                            summary.unknown += 1
                        case Failed(_, error):
                            summary.errors.append(error)
                    bar.update(task, completed=outcomes.progress.done)
    return summary, time.perf_counter() - start


def show(summary: Summary, seconds: float, console: Console) -> None:
    """Print the summary."""
    done = summary.found + summary.unknown + len(summary.errors)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("users found", f"{summary.found:,}")
    facts.add_row("users unknown", f"{summary.unknown:,}")
    facts.add_row("users failed", f"{len(summary.errors):,}")
    facts.add_row("items", f"{summary.items:,}")
    facts.add_row("total sellback value", f"USD {summary.value:,.2f}")
    facts.add_row("sellback ends within 24 h", f"{summary.expiring:,} items")
    facts.add_row("users per second", f"{done / seconds:,.0f}")
    console.print(facts)
    cards = Table(title="The ten most valuable cards", title_justify="left")
    cards.add_column("USD", justify="right")
    cards.add_column("card")
    cards.add_column("owner")
    for price, name, user_id in summary.best:
        cards.add_row(f"{price:,.2f}", name, user_id)
    console.print(cards)
    for error in summary.errors[:5]:
        console.print(f"failed: {error}")


def main() -> None:
    """Start the server, refresh, show."""
    console = Console()
    console.print(f"starting a sandbox with {USERS:,} users ...")
    with sandbox_server() as (base_url, api_key):
        summary, seconds = asyncio.run(refresh(base_url, api_key, console))
    show(summary, seconds, console)
    if summary.errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
