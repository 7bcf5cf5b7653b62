"""Kills a refresh at random moments, goes on with it, and holds what it kept and told against the market.

    python tests/refresh_kills.py --users 20000 --kills 20

The moments are counted in requests, so that they fall all over the run however fast the machine is, and a few
milliseconds more: some hit a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from attrs import frozen

import refresh_market
from phygitals_async import PhygitalsClient
from phygitals_async.refresh import _run, open_store, read_changes, read_inventories, refresh


@frozen
class Killed:
    """What came of it.

    Attributes:
        kills: How many processes were killed before they had finished.
        asked: Requests the server saw.
        lost: Users without the snapshot or the changes they should have.
        twice: Users of whom something was told twice.
    """

    kills: int
    asked: int
    lost: list[str]
    twice: list[str]


def ids(users: int) -> list[str]:
    """Return who is refreshed."""
    return [f"user_{number:06d}" for number in range(users)]


def refresh_and_kill(store: str, users: int, kills: int, *, seed: int, commit: int) -> Killed:
    """Refresh on two days, killing half of the processes on each, and check what is in the store after each day."""
    chance = random.Random(seed)
    market, done = refresh_market.Market(), 0
    lost: set[str] = set()
    twice: set[str] = set()
    with market.serving():
        for day in (0, 1):
            for _ in range(kills // 2):
                requests = chance.randrange(1, 4 * users // (kills + 8))
                done += _killed_once(market, store, day, users, commit, requests, chance.random() * 0.01)
            with _child(market.url(day), store, users, commit, f"day {day}") as child:
                assert child.wait() == 0
            missing, repeated = asyncio.run(_check(store, users, day))
            lost |= missing
            twice |= repeated
    return Killed(done, market.asked, sorted(lost), sorted(twice))


def _killed_once(
    market: refresh_market.Market, store: str, day: int, users: int, commit: int, requests: int, delay: float
) -> bool:
    """Kill a process when it has made so many requests, and return whether that was before its end."""
    with _child(market.url(day), store, users, commit, f"day {day}") as child:

        def kill() -> None:
            time.sleep(delay)
            os.kill(child.pid, signal.SIGKILL)

        market.after(requests, kill)
        ended = child.wait()
        market.forget()
        return ended == -signal.SIGKILL


def _child(url: str, store: str, users: int, commit: int, run: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--child", url, store, str(users), str(commit), run])


async def _check(location: str, users: int, day: int) -> tuple[set[str], set[str]]:
    """Return the users of whom something is missing, and those of whom something is there twice."""
    lost: set[str] = set()
    async with open_store(location) as store:
        kept = [(inventory.user_id, inventory) async for inventory in read_inventories(store)]
        rows = await store.users(ids(users))
        told: dict[str, list[object]] = {}
        async for c in read_changes(store, since="day 0" if day else None):
            card = c.after or c.before
            prices = [None if item is None else float(item.buyback_price) for item in (c.before, c.after)]
            told.setdefault(c.user_id, []).append((str(c.kind), card and card.id, *prices))
    twice = {user_id for user_id, count in Counter(user_id for user_id, _ in kept).items() if count > 1}
    twice |= {user_id for user_id, changes in told.items() if len(set(changes)) < len(changes)}
    snapshots = dict(kept)
    for user_id in ids(users):
        cards = refresh_market.cards_of(user_id, day)
        if cards is not None and {i.id: float(i.buyback_price) for i in snapshots[user_id].items} != cards:
            lost.add(user_id)
        if rows[user_id].run != day + 1 or rows[user_id].known is not (cards is not None):
            lost.add(user_id)
        if sorted(told.get(user_id, []), key=repr) != sorted(refresh_market.differences(user_id, day), key=repr):
            lost.add(user_id)
    return lost, twice


async def _refresh(url: str, location: str, users: str, commit: str, run: str) -> None:
    _run._COMMIT_USERS = int(commit)  # type: ignore[misc]
    async with PhygitalsClient(api_key="sandbox-test", base_url=url) as api, open_store(location) as store:
        await refresh(api, ids(int(users)), store, run=run)


def main() -> None:
    """Do it as often as told, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="a path or postgresql://..., which must be empty (default: a temporary file)")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asyncio.run(_refresh(*options.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or str(Path(folder) / "store.db")
        killed = refresh_and_kill(store, options.users, options.kills, seed=options.seed, commit=500)
    print(f"{options.users:,} users on two days, {killed.kills} kills, {killed.asked:,} requests: ", end="")
    print(f"{len(killed.lost)} lost, {len(killed.twice)} told twice")
    raise SystemExit(bool(killed.lost or killed.twice))


if __name__ == "__main__":
    main()
