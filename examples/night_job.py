"""The night job on 2,000 users: killed half way, run again, and what had changed on the second night.

A sandbox that answers 600 requests a second is served on loopback; neither key nor network is needed. The commands are
those one would type.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

from attrs import evolve

from phygitals_async import PhygitalsClient, Request, Response
from phygitals_async.refresh import open_store, read_changes
from phygitals_async.sandbox import RateLimit, Sandbox, SandboxOptions
from phygitals_async.sandbox.population import populate, user_name
from phygitals_transports.aiohttp_server import serve

USERS = 2000
PER_SECOND = 600
# How many requests the first process gets to make.
KILLED_AFTER = 1000
KEY = "sandbox-demo"


class Market:
    """A sandbox that counts what is asked of it."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(options=SandboxOptions(rate_limit=RateLimit(PER_SECOND, burst=20)), seed=1)
        populate(self.sandbox, USERS)
        self.asked = 0
        self.asked_enough = asyncio.Event()

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        self.asked += 1
        if self.asked == KILLED_AFTER:
            self.asked_enough.set()
        return self.sandbox(request)

    async def move(self, api: PhygitalsClient) -> None:
        """Let a few prices move, a few cards be sold back, and a few users buy a pack."""
        batch = await api.get_inventories([user_name(number) for number in range(0, USERS, 20)])
        owners = [found.value for found in batch.found if found.value.items]
        for inventory in owners:
            card = inventory.items[0]
            self.sandbox.put_item(inventory.user_id, evolve(card, buyback_price=card.buyback_price + Decimal("1.25")))
        for inventory in owners[:20]:
            await api.sell_back(inventory.items[-1].id, owner=inventory.user_id)
        for inventory in owners[-20:]:
            await api.purchase(self.sandbox.packs[0].id, 1, inventory.user_id)


async def phygitals(url: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start a command, as it would be typed."""
    print(f"\n$ phygitals {shlex.join(arguments)}", flush=True)
    variables = {**os.environ, "PHYGITALS_API_KEY": KEY, "PHYGITALS_BASE_URL": f"{url}/_"}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "phygitals_async", *arguments, env=variables)


def typed() -> str:
    """Return how the command is called here: it is installed beside Python, and need not be on the PATH."""
    beside = Path(sys.executable).with_name("phygitals")
    if not beside.exists():
        return shlex.join((sys.executable, "-m", "phygitals_async"))
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


async def finish(process: asyncio.subprocess.Process) -> None:
    """Wait for a command that must succeed."""
    if status := await process.wait():
        sys.exit(f"it ended with status {status}")


async def main(folder: Path) -> None:
    """Do it."""
    market, ids, store = Market(), folder / "users.txt", str(folder / "users.db")
    ids.write_text("".join(f"{user_name(number)}\n" for number in range(USERS)))
    async with serve(market) as url:
        night = ("refresh", "--ids", str(ids), "--store", store, "--run")
        first = await phygitals(url, *night, "monday")
        await market.asked_enough.wait()
        first.kill()
        await first.wait()
        print(f"killed after {KILLED_AFTER:,} requests; the same command goes on:")
        await finish(await phygitals(url, *night, "monday"))
        print(f"{USERS:,} users took {market.asked:,} requests, refused and lost ones included")

        # A sale that is refused by a limit is not repeated, so this client keeps well below it.
        async with PhygitalsClient(api_key=KEY, base_url=f"{url}/_", rate=PER_SECOND / 4) as api:
            await market.move(api)
        print("\nThe market moved. The next night:")
        await finish(await phygitals(url, *night, "tuesday"))
        async with open_store(store) as opened:
            kinds = Counter([change.kind async for change in read_changes(opened, since="monday")])
        print("what changed:", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
        await finish(await phygitals(url, "report", "--store", store, "--output", str(folder / "report.html")))
        await finish(await phygitals(url, "export", "--store", store, "--format", "csv", "--output", f"{store}.csv"))
    print(f"""
What is left is in {folder}: a store, a report to open in a browser, a table of all items. Try next:
  {typed()} changes --store {store} --since monday
  {typed()} sandbox --users 100    # and the commands of docs/cli.md against it""")


if __name__ == "__main__":
    asyncio.run(main(Path(tempfile.mkdtemp(prefix="phygitals-demo-"))))
