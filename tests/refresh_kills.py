"""Kills a refresh at random moments, goes on with it, and holds what it kept and told against the market.

    python tests/refresh_kills.py --users 20000 --kills 20
    python tests/refresh_kills.py --dask

With Dask there are two workers, and what is killed is one of them or the process that hands the users out to them.
The moments are counted in requests, so that they fall all over the run however fast the machine is, and a few
milliseconds more: some hit a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen

import refresh_market
from phygitals_async import PhygitalsClient
from phygitals_async.refresh import _run, open_store, read_changes, read_inventories, refresh

# Of a run on Dask, set where its workers start: how many users a commit has.
_COMMIT = "REFRESH_KILLS_COMMIT"
# How a process ends whose run can be gone on with.
_RESUMABLE = 4


@frozen
class Killed:
    """What came of it.

    Attributes:
        kills: How many processes were killed while a refresh was under way.
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


def refresh_and_kill(store: str, users: int, kills: int, *, seed: int, commit: int, part: int = 0) -> Killed:
    """Refresh on two days, killing half of the processes on each, and check what is in the store after each day.

    With a size of parts it is done on two workers of Dask.
    """
    chance = random.Random(seed)
    market, done = refresh_market.Market(), 0
    lost: set[str] = set()
    twice: set[str] = set()
    with market.serving():
        for day in (0, 1):
            work = _Work(market, store, users, commit, part, day)
            with work.workers():
                done += work.be_done(kills // 2, 4 * users // (kills + 8), chance)
            missing, repeated = asyncio.run(_check(store, users, day))
            lost |= missing
            twice |= repeated
    return Killed(done, market.asked, sorted(lost), sorted(twice))


@frozen
class _Work:
    """The refresh of a day, in processes that can be killed."""

    market: refresh_market.Market
    store: str
    users: int
    commit: int
    part: int
    day: int
    cluster: list[Any] = field(factory=list)

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Have the workers running while the block runs, if there are to be some."""
        if not self.part:
            yield
            return
        distributed: Any = importlib.import_module("distributed")
        variables = {
            "PHYGITALS_API_KEY": "sandbox-test",
            "PHYGITALS_BASE_URL": self.market.url(self.day),
            _COMMIT: str(self.commit),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), *sys.path])),
        }
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            env=variables,
            silence_logs=logging.CRITICAL,
            preload=[__file__],
        ) as cluster:
            self.cluster[:] = [cluster]
            yield

    def be_done(self, kills: int, requests: int, chance: random.Random) -> int:
        """Kill so many processes, after up to so many requests each, go on to the end, and return how many it were."""
        killed, child = 0, self._start()
        while True:
            is_last = killed == kills
            if not is_last:
                killed += self._kills(child, chance.randrange(1, requests), chance)
            if is_last or child.poll() is not None:
                with child:
                    status = child.wait()
                assert status in (0, _RESUMABLE, -signal.SIGKILL)
                if not status:
                    return killed
                # Killed, or given back parts that were killed too often.
                child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start, or go on with it."""
        on = self.cluster[0].scheduler_address if self.cluster else ""
        arguments = (self.market.url(self.day), self.store, self.users, self.commit, f"day {self.day}", on, self.part)
        return subprocess.Popen([sys.executable, __file__, "--child", *map(str, arguments)])

    def _kills(self, child: subprocess.Popen[bytes], requests: int, chance: random.Random) -> bool:
        """Kill a process when so many requests were made, and return whether that was before the end."""
        delay, is_worker = chance.random() * 0.01, bool(self.cluster) and chance.random() < 0.5
        killed = threading.Event()

        def kill() -> None:
            time.sleep(delay)
            if is_worker:
                nanny = chance.choice([*self.cluster[0].workers.values()])
                if nanny.pid is None:  # It is on its way back from the last time.
                    self.market.after(1, kill)
                    return
                os.kill(nanny.pid, signal.SIGKILL)
            else:
                child.kill()
            killed.set()

        self.market.after(requests, kill)
        while not killed.wait(0.01) and child.poll() is None:
            pass
        self.market.forget()
        return killed.is_set()


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


async def _refresh(url: str, location: str, users: str, commit: str, run: str, on: str, part: str) -> bool:
    _run._COMMIT_USERS = int(commit)  # type: ignore[misc]
    async with open_store(location) as store:
        if on:
            from phygitals_async.refresh import _dask_parts

            _dask_parts._FIRST_PART_USERS = _dask_parts._MOST_PART_USERS = int(part)  # type: ignore[misc]
            report = await refresh(PhygitalsClient, ids(int(users)), store, run=run, on=on)
        else:
            async with PhygitalsClient(api_key="sandbox-test", base_url=url) as api:
                report = await refresh(api, ids(int(users)), store, run=run)
    return report.resumable


def dask_setup(_: object) -> None:
    """Set a worker up, which Dask calls where this file is preloaded."""
    _run._COMMIT_USERS = int(os.environ[_COMMIT])  # type: ignore[misc]


def main() -> None:
    """Do it as often as told, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="a path or postgresql://..., which must be empty (default: a temporary file)")
    parser.add_argument("--dask", action="store_true", help="on two workers of Dask")
    parser.add_argument("--child", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        raise SystemExit(_RESUMABLE if asyncio.run(_refresh(*options.child)) else 0)
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or str(Path(folder) / "store.db")
        part = 1000 if options.dask else 0
        killed = refresh_and_kill(store, options.users, options.kills, seed=options.seed, commit=500, part=part)
    print(f"{options.users:,} users on two days, {killed.kills} kills, {killed.asked:,} requests: ", end="")
    print(f"{len(killed.lost)} lost, {len(killed.twice)} told twice")
    raise SystemExit(bool(killed.lost or killed.twice))


if __name__ == "__main__":
    main()
