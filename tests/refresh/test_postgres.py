"""The store in a database: what can go wrong with a server, and who may use one at once."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from attrs import evolve

from phygitals_async import (
    ConfigurationError,
    PhygitalsClient,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)
from phygitals_async.refresh import (
    Part,
    PostgresStore,
    Run,
    StoredUser,
    open_store,
    read_changes,
    refresh,
)
from phygitals_async.refresh._postgres import STEPS
from phygitals_transports import MemoryTransport
from postgres_server import execute
from support import empty_inventories

pytestmark = pytest.mark.asyncio

RUN = Run(1, "first", datetime(2026, 4, 18, tzinfo=UTC))

COUNTS: dict[str, Any] = {"known": 1, "unknown": 20, "changed": 300, "repriced": 4000, "changes": 50000, "failed": 6}


def api() -> PhygitalsClient:
    """Return a client whose users own nothing."""
    return PhygitalsClient(MemoryTransport(empty_inventories), api_key="sandbox-test")


async def test_a_connection_that_is_lost_ends_the_run_and_it_can_be_gone_on_with(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock goes with the connection, so nothing more may be written; the same store goes on afterwards."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 50)

    def ids() -> Iterator[str]:
        for number in range(1000):
            if number == 512:
                lost.set()
            yield f"user_{number}"

    lost = asyncio.Event()

    async def cut() -> None:
        await lost.wait()
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks "
        await execute(database, statement + "WHERE locktype = 'advisory')")

    async with PostgresStore(database) as store:
        cutting = asyncio.create_task(cut())
        with pytest.raises(StoreUnavailable):
            await refresh(api(), _slowly(ids(), cutting), store)
        assert 0 < len(await store.user_page("", 2000)) < 1000
        report = await refresh(api(), ids(), store)
        assert (report.run.number, report.run.known, report.resumable) == (1, 1000, False)
        assert len([change async for change in read_changes(store)]) == 1000


async def _slowly(ids: Iterator[str], cutting: asyncio.Task[None]) -> AsyncIterator[str]:
    for number, user_id in enumerate(ids):
        if number == 600:
            await cutting
        yield user_id


async def test_a_database_that_is_not_there_is_told_without_the_password(postgres: str) -> None:
    """Neither its name nor its port."""
    for address in (f"{postgres}_none", "postgresql://somebody:s3cret@127.0.0.1:1/postgres"):
        store = PostgresStore(address)
        with pytest.raises(StoreUnavailable) as caught:
            await store.runs()
        assert "s3cret" not in f"{caught.value} {store!r}"
        host = urlsplit(address).netloc.rpartition("@")[2]
        assert f"the database {host}{urlsplit(address).path}, schema phygitals: " in str(caught.value)
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="was closed"):
            await store.runs()


async def test_two_runs(postgres: str, schema: str) -> None:
    """The second is refused, in the same schema only."""
    async with PostgresStore(postgres, schema=schema) as first, PostgresStore(postgres, schema=schema) as second:
        await first.acquire()
        with pytest.raises(StoreBusy, match="another run is under way"):
            await refresh(api(), ["a"], second)
        await first.release()
        assert (await refresh(api(), ["a"], second)).run.known == 1
        assert (await first.runs())[0].known == 1


async def test_a_run_that_is_cancelled_while_it_waits_for_the_store(postgres: str, schema: str) -> None:
    """It leaves no connection that would get the store later."""
    async with PostgresStore(postgres, schema=schema) as first, PostgresStore(postgres, schema=schema) as second:
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"
        while not await execute(postgres, query):  # noqa: ASYNC110 - it is another process that says so.
            await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await first.release()
        await first.acquire()


async def test_a_schema_of_a_newer_version_is_told_and_left_alone(postgres: str, schema: str) -> None:
    """Nothing is known of what it holds."""
    async with PostgresStore(postgres, schema=schema) as store:
        await store.commit(RUN)
    quoted = schema.replace('"', '""')
    await execute(postgres, f'UPDATE "{quoted}".version SET number = 1000')  # noqa: S608 - the test's own name.
    with pytest.raises(StoreTooNew, match="update phygitals-async"):
        await PostgresStore(postgres, schema=schema).runs()


@pytest.mark.parametrize("version", range(len(STEPS)))
async def test_a_schema_of_an_older_version_is_brought_up_to_date(
    postgres: str, schema: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it holds; also where several come at once."""
    older = PostgresStore(postgres, schema=schema)
    monkeypatch.setattr(older._pool, "_steps", STEPS[:version])
    async with older:
        if version:
            await older._pool.write(lambda c: c.execute("INSERT INTO users VALUES ('a', 1, true, '', '', '')"))
        if 0 < version < 4:
            # The run counted by itself.
            run = "INSERT INTO runs VALUES (1, 'first', $1, NULL, 1, 20, 300, 4000, 50000, 6)"
            await older._pool.write(lambda c: c.execute(run, RUN.started_at))
    stores = [PostgresStore(postgres, schema=schema) for _ in range(3)]
    found = await asyncio.gather(*(store.user_page("", 10) for store in stores))
    assert found == [["a"] * (version > 0)] * 3
    assert await stores[0].reserve("default", 1.0) == 0.0
    assert await stores[0].runs() == [evolve(RUN, **COUNTS)] * (0 < version < 4)
    for store in stores:
        await store.aclose()


async def test_a_schema_that_is_given(postgres: str, schema: str) -> None:
    """Whoever may not make one gets an empty one made for them."""
    quoted = schema.replace('"', '""')
    await execute(postgres, f'CREATE SCHEMA "{quoted}"')
    async with PostgresStore(postgres, schema=schema) as store:
        assert await store.runs() == []


async def test_a_commit_that_fails_halfway_leaves_nothing(postgres: str, schema: str) -> None:
    """Here by a text that the database cannot keep."""
    async with PostgresStore(postgres, schema=schema) as store:
        with pytest.raises(StoreError):
            await store.commit(RUN, [StoredUser("a", 1, True), StoredUser("b\0", 1, True)])
        assert await store.runs() == []
        assert await store.user_page("", 10) == []


async def test_of_two_parts_with_the_same_users_one_waits_for_the_other(postgres: str, schema: str) -> None:
    """Whether the rows were there before or not; and it finds that they are of the run already."""
    async with PostgresStore(postgres, schema=schema) as store:
        await store.commit(evolve(RUN, number=1))
        await store.commit(evolve(RUN, number=1), [StoredUser("old", 1, True)], part=Part(1))
        second = evolve(RUN, number=2, name="second")
        await store.commit(second)
        for ids in (["new"], ["old"], ["new 2", "old 2"]):
            users = [StoredUser(user_id, 2, True) for user_id in ids]
            written, go_on = asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(_commit_and_wait(store, ids, written, go_on))
            await written.wait()
            late = asyncio.create_task(store.commit(second, users, dict.fromkeys(ids, b"late"), part=Part(2, known=1)))
            query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await execute(postgres, query):  # noqa: ASYNC110 - it is another process that says so.
                await asyncio.sleep(0.02)
            go_on.set()
            await first
            assert sorted(await late) == ids
            assert await store.snapshots(ids) == {}
            assert await store.part(2, 2) is None


async def _commit_and_wait(store: PostgresStore, ids: list[str], written: asyncio.Event, go_on: asyncio.Event) -> None:
    async def write(connection: Any) -> None:
        for user_id in ids:
            await connection.execute(
                "INSERT INTO users VALUES ($1, 2, true, '', '', '') ON CONFLICT (user_id) DO UPDATE SET run = 2",
                user_id,
            )
        written.set()
        await go_on.wait()

    await store._pool.write(write)


async def test_a_later_run_waits_for_what_is_being_committed(postgres: str, schema: str) -> None:
    """So that nothing of the run before comes after it."""
    async with PostgresStore(postgres, schema=schema) as store:
        await store.commit(RUN)
        written, go_on = asyncio.Event(), asyncio.Event()

        async def write(connection: Any) -> None:
            await connection.execute("LOCK TABLE runs IN ROW SHARE MODE")
            written.set()
            await go_on.wait()
            await connection.execute("INSERT INTO users VALUES ('a', 1, true, '', '', '')")

        committing = asyncio.create_task(store._pool.write(write))
        await written.wait()
        beginning = asyncio.create_task(store.commit(evolve(RUN, number=2, name="second")))
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not await execute(postgres, query):  # noqa: ASYNC110 - it is another process that says so.
            await asyncio.sleep(0.02)
        assert not beginning.done()
        go_on.set()
        await asyncio.gather(committing, beginning)
        assert list(await store.commit(RUN, [StoredUser("b", 1, True)], part=Part(1))) == ["b"]


async def test_it_is_pickled_as_what_it_takes_to_open_it(postgres: str, schema: str) -> None:
    """On another machine too."""
    async with PostgresStore(postgres, schema=schema) as store:
        await store.commit(RUN)
        async with pickle.loads(pickle.dumps(store)) as again:  # noqa: S301 - our own.
            assert await again.runs() == [RUN]


async def test_what_the_server_says_is_told_apart(postgres: str, schema: str) -> None:
    """A full disk and damaged data, as the server would say it."""
    async with PostgresStore(postgres, schema=schema) as store:
        for state, error in (("53100", StoreFull), ("XX001", StoreCorrupt), ("57P03", StoreUnavailable)):
            statement = f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END $$"
            with pytest.raises(error, match="as told"):
                await store._pool.read(statement)


async def test_one_loop_at_a_time_and_asyncio_only(postgres: str, schema: str) -> None:
    """Asyncpg knows no other."""
    store = PostgresStore(postgres, schema=schema)
    await store.runs()
    with pytest.raises(ConfigurationError, match="this store is in use by another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(_runs(store)))
    with pytest.raises(ConfigurationError, match="asyncio only"):
        await asyncio.to_thread(lambda: trio.run(_runs, PostgresStore(postgres, schema=schema)))
    await store.aclose()


async def _runs(store: PostgresStore) -> None:
    await store.runs()


async def test_it_is_opened_by_its_address(postgres: str) -> None:
    """And shows no more than the schema."""
    store = open_store(postgres)
    assert repr(store) == "<PostgresStore in the schema phygitals>"
    await store.aclose()


async def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, it is told how to get it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'phygitals-async\[postgres\]'"):
        open_store("postgresql://127.0.0.1/postgres")
