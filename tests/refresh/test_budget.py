"""A budget in a store: what it takes, and that processes share it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from phygitals_async import ConfigurationError, Request, Response
from phygitals_async.refresh import Budget, MemoryStore, SqliteStore
from phygitals_transports.aiohttp_server import serve
from support import empty_inventories


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("store.db", 200.0), "store must be a store"),
        ((MemoryStore, 200.0), "store must be a store"),
        ((MemoryStore(), 0), "rate must be a positive, finite number of requests per second, not 0"),
        ((MemoryStore(), "200"), "rate must be a positive"),
        ((MemoryStore(), 0.09), "the rate of a budget must be at least 0.1"),
        ((MemoryStore(), 200.0, ""), "the name of a budget"),
        ((MemoryStore(), 200.0, "a\0"), "the name of a budget"),
        ((MemoryStore(), 200.0, "\ud800"), "the name of a budget"),
        ((MemoryStore(), 200.0, None), "the name of a budget"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(arguments: Any, says: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigurationError, match=says):
        Budget(*arguments)


def test_it_shows_what_it_is(tmp_path: Path) -> None:
    """And nothing of a database's address."""
    budget = Budget(SqliteStore(tmp_path / "store.db"), 200.0)
    assert repr(budget) == f"<Budget 'default' of 200 requests/s in <SqliteStore {tmp_path / 'store.db'}>>"


# Prints how many users were found, and the seconds of each reservation.
_PROGRAM = """if True:
    import asyncio, json, sys
    from phygitals_async import PhygitalsClient
    from phygitals_async.refresh import Budget, SqliteStore

    class Noting(SqliteStore):
        seconds = []

        async def reserve(self, name, seconds):
            self.seconds.append(seconds)
            return await super().reserve(name, seconds)

    async def main(url, path, name):
        async with Noting(path) as store:
            async with PhygitalsClient(api_key="sandbox-test", base_url=url, rate=Budget(store, 400.0)) as api:
                batch = await api.get_inventories([f"{name}_{number}" for number in range(100)])
        print(json.dumps([len(batch.found), store.seconds]))

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    """Each request has a moment that nobody else has: what they reserve lies one behind the other."""
    path = tmp_path / "store.db"
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.url)
        return empty_inventories(request)

    def watch(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE log (reserved_until REAL)")
        connection.execute(
            "CREATE TRIGGER logs AFTER INSERT ON budgets BEGIN INSERT INTO log VALUES (new.reserved_until); END"
        )

    async def run(name: str) -> tuple[int, list[float]]:
        command = [sys.executable, "-c", _PROGRAM, url, str(path), name]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        found, seconds = json.loads((await process.communicate())[0])
        return found, seconds

    async with SqliteStore(path) as store:
        await store._thread.write(watch)
        async with serve(answer) as url:
            told = await asyncio.gather(run("one"), run("other"))
        log = await store._read("SELECT reserved_until FROM log ORDER BY rowid")
    assert [found for found, _ in told] == [100, 100]
    assert len(asked) == len(set(asked)) == 200
    reserved = [seconds for _, each in told for seconds in each]
    ends = [end for (end,) in log]
    assert len(ends) == len(reserved)
    assert ends == sorted(ends)
    # A moment for each request, and none of them twice.
    assert sum(reserved) >= 200 / 400.0 - 1e-3
    assert ends[-1] - ends[0] >= sum(reserved) - max(reserved) - 1e-3
