"""The store in a file: what can go wrong with files, and who may use one at once."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import subprocess
import sys
import threading
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from attrs import evolve

from phygitals_async import (
    PhygitalsClient,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)
from phygitals_async.journal import JournalEntry
from phygitals_async.refresh import (
    Run,
    SqliteStore,
    StoredChanges,
    StoredUser,
    open_store,
    read_changes,
    read_inventories,
    refresh,
)
from phygitals_async.refresh._sqlite import STEPS
from phygitals_async.refresh._sqlite_thread import SqliteThread
from phygitals_transports import MemoryTransport
from support import empty_inventories

pytestmark = pytest.mark.anyio

RUN = Run(1, "first", datetime(2026, 4, 18, tzinfo=UTC))
COUNTS: dict[str, Any] = {"known": 1, "unknown": 20, "changed": 300, "repriced": 4000, "changes": 50000, "failed": 6}
BODY = bytes(range(256)) * 20


def api() -> PhygitalsClient:
    """Return a client whose users own nothing."""
    return PhygitalsClient(MemoryTransport(empty_inventories), api_key="sandbox-test")


async def fill(store: SqliteStore, number: int) -> None:
    """Commit a user whose snapshot takes some room."""
    user_id = f"user_{number}"
    changes = [StoredChanges(0, 1, user_id, RUN.started_at, BODY)]
    await store.commit(RUN, [StoredUser(user_id, 1, True)], {user_id: BODY}, changes)


async def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """The commit that did not fit leaves nothing behind, and goes well once there is room."""
    async with SqliteStore(tmp_path / "store.db") as store:
        await fill(store, 0)
        await store._thread.do(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchall())
        with pytest.raises(StoreFull, match=r"store\.db: database or disk is full"):
            await _fill_up(store)
        users = await store.user_page("", 100)
        number = len(users)
        assert number > 1
        assert len(await store.snapshots(users)) == len(await store.change_page(0, 100)) == number
        # A run that meets it is the same after it as any that was cut short.
        await store.acquire()
        await store.release()
        await store._thread.do(lambda connection: connection.execute("PRAGMA max_page_count = 4000").fetchall())
        await fill(store, 100)
        assert len(await store.user_page("", 200)) == number + 1


async def _fill_up(store: SqliteStore) -> None:
    for number in range(1, 100):
        await fill(store, number)


async def test_a_refresh_on_a_full_disk_can_be_gone_on_with(tmp_path: Path) -> None:
    """The error comes out of `refresh`, and the same call goes on when there is room."""
    ids = [f"user_{number}" for number in range(3000)]
    async with SqliteStore(tmp_path / "store.db") as store, api() as client:
        await store._thread.do(lambda connection: connection.execute("PRAGMA max_page_count = 100").fetchall())
        with pytest.raises(StoreFull):
            await refresh(client, ids, store)
        await store._thread.do(lambda connection: connection.execute("PRAGMA max_page_count = 4000").fetchall())
        report = await refresh(client, ids, store)
        assert (report.run.number, report.run.known, report.resumable) == (1, 3000, False)
        assert report.skipped > 0
        assert len([change async for change in read_changes(store)]) == 3000


@pytest.mark.parametrize("damage", ["text", "another's", "truncated", "zeros inside"])
async def test_a_file_that_is_no_store_is_told_and_left_alone(tmp_path: Path, damage: str) -> None:
    """Text, another program's database, and a store with holes."""
    path = tmp_path / "store.db"
    if damage == "text":
        path.write_text("user ids\n" * 1000)
    elif damage == "another's":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE customers (name)")
        other.close()
    else:
        async with SqliteStore(path) as store:
            for number in range(20):
                await fill(store, number)
        content = path.read_bytes()
        path.write_bytes(content[:5000] if damage == "truncated" else content[:4096] + bytes(len(content) - 4096))
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreCorrupt, match=r"store\.db"):
        await _read_everything(store)
    await store.aclose()
    assert path.read_bytes() == before


async def _read_everything(store: SqliteStore) -> None:
    async with store:
        await store.runs()
        await store.snapshot_page("", 100)
        await store.change_page(0, 100)


async def test_what_is_kept_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Whatever wrote it."""
    async with SqliteStore(tmp_path / "store.db") as store:
        await fill(store, 0)
        with pytest.raises(StoreCorrupt, match="a part of the store cannot be read"):
            _ = [inventory async for inventory in read_inventories(store)]
        await store.commit(RUN, snapshots={"user_0": zlib.compress(b"[]")})
        with pytest.raises(StoreCorrupt, match="a snapshot cannot be read"):
            _ = [inventory async for inventory in read_inventories(store)]
        await store.write_entry(JournalEntry("1", "sell_back", {}, RUN.started_at))
        await store._thread.write(lambda connection: connection.execute("UPDATE journal SET entry = '{}'").fetchall())
        with pytest.raises(StoreCorrupt, match="an entry of the journal cannot be read"):
            await store.open_entries()


async def test_a_store_of_a_newer_version_is_told_and_left_alone(tmp_path: Path) -> None:
    """Nothing is known of what it holds."""
    path = tmp_path / "store.db"
    async with SqliteStore(path) as store:
        await fill(store, 0)
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    other.close()
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreTooNew, match="update phygitals-async"):
        await store.acquire()
    await store.aclose()
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", range(len(STEPS)))
async def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    """With what it holds."""
    path = tmp_path / "store.db"
    older = SqliteThread(path, STEPS[:version])
    await older.do(lambda connection: connection.execute("SELECT 1").fetchall())
    if version:
        await older.write(
            lambda connection: connection.execute("INSERT INTO users VALUES ('a', 1, 1, '', '', '')").fetchall()
        )
    if 0 < version < 4:
        # The run counted by itself.
        run = "INSERT INTO runs VALUES (1, 'first', ?, NULL, 1, 20, 300, 4000, 50000, 6)"
        await older.write(lambda connection: connection.execute(run, (RUN.started_at.isoformat(),)).fetchall())
    await older.aclose()
    async with SqliteStore(path) as store:
        assert await store.user_page("", 10) == ["a"] * (version > 0)
        assert await store.runs() == [evolve(RUN, **COUNTS)] * (0 < version < 4)
        await fill(store, 0)
        assert await store.reserve("default", 1.0) == 0.0
        ((found,),) = await store._thread.do(lambda connection: connection.execute("PRAGMA user_version").fetchall())
        assert found == len(STEPS)


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """Return a folder in which SQLite cannot write the file that it needs beside a store.

    Whoever runs the tests may be allowed to write everywhere.
    """
    (tmp_path / "store.db-shm").symlink_to("nowhere/at-all")
    return tmp_path


async def test_a_store_that_was_closed_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    """From a snapshot of a disk, or a folder of somebody else's."""
    path = tmp_path / "a store?#%41.db"
    async with SqliteStore(path) as store:
        await fill(store, 0)
    path.with_name(f"{path.name}-shm").symlink_to("nowhere/at-all")
    async with SqliteStore(path) as store:
        assert await store.user_page("", 10) == ["user_0"]
        assert len(await store.change_page(0, 10)) == 1
        with pytest.raises(StoreUnavailable, match="readonly"):
            await fill(store, 1)


async def test_what_is_not_at_rest_or_not_there_is_not_read_so(unwritable: Path) -> None:
    """Something that was committed would be missing."""
    path = unwritable / "store.db"
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await SqliteStore(unwritable / "none" / "store.db").runs()
    path.with_name("store.db-shm").unlink()
    async with SqliteStore(path) as store:
        await fill(store, 0)
        # As it is after a kill.
        copy, rest = path.read_bytes(), path.with_name("store.db-wal").read_bytes()
    path.write_bytes(copy)
    path.with_name("store.db-wal").write_bytes(rest)
    path.with_name("store.db-shm").unlink(missing_ok=True)
    path.with_name("store.db-shm").symlink_to("nowhere/at-all")
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await SqliteStore(path).runs()


async def test_an_older_store_where_nothing_can_be_written(unwritable: Path) -> None:
    """It is told what to do."""
    path = unwritable / "store.db"
    path.with_name("store.db-shm").unlink()
    older = SqliteThread(path, STEPS[:1])
    await older.do(lambda connection: connection.execute("SELECT 1").fetchall())
    await older.aclose()
    path.with_name("store.db-shm").symlink_to("nowhere/at-all")
    with pytest.raises(StoreUnavailable, match="is of an older version, and cannot be brought up to date"):
        await SqliteStore(path).runs()


async def test_a_link_to_a_store_has_its_lock(tmp_path: Path) -> None:
    """A run that has the store has it under each of its names."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to("folder")
    (tmp_path / "link.db").symlink_to("other/store.db")
    names = [tmp_path / "folder" / "store.db", tmp_path / "link.db", tmp_path / "other" / "store.db"]
    for name in names:
        async with SqliteStore(name) as first:
            await first.acquire()
            for other in names:
                async with SqliteStore(other) as second:
                    with pytest.raises(StoreBusy):
                        await second.acquire()
    assert (tmp_path / "link.db").is_symlink()


async def test_several_may_make_a_store_at_once(tmp_path: Path) -> None:
    """None of them takes what another has half made for a database of another program."""
    for turn in range(10):
        stores = [SqliteStore(tmp_path / f"{turn}.db") for _ in range(12)]
        async with anyio.create_task_group() as tasks:
            for store in stores:
                tasks.start_soon(store.runs)
        for store in stores:
            await store.aclose()


async def test_a_new_file_that_another_process_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as for a commit, and then told."""
    path = tmp_path / "store.db"
    monkeypatch.setattr("phygitals_async.refresh._sqlite_thread._PATIENCE", 0.05)
    store = SqliteStore(path)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="database is locked"):
            await store.runs()
        monkeypatch.setattr("phygitals_async.refresh._sqlite_thread._PATIENCE", 60.0)
        ending = threading.Timer(0.05, lambda: other.execute("COMMIT"))
        ending.start()
        assert await store.runs() == []
        ending.join()
    await store.aclose()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """And so is a file where a folder should be; once it is there, the same store opens."""
    path = tmp_path / "folder" / "store.db"
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await store.runs()
    path.parent.mkdir()
    assert await store.runs() == []
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="was closed"):
        await store.runs()
    await store.release()
    assert repr(store) == f"<SqliteStore {path}>"


async def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """It is not that another run were under way."""
    (tmp_path / "store.db.lock").mkdir()
    async with SqliteStore(tmp_path / "store.db") as store:
        with pytest.raises(StoreUnavailable):
            await store.acquire()
    (tmp_path / "other.db.lock").write_text("no lock of ours\n" * 1000)
    async with SqliteStore(tmp_path / "other.db") as store:
        with pytest.raises(StoreCorrupt):
            await store.acquire()


async def test_a_commit_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    """Here by a value that no store can keep."""
    wrong: Any = object()
    async with SqliteStore(tmp_path / "store.db") as store:
        with pytest.raises(StoreError):
            await store.commit(RUN, [StoredUser("a", 1, True)], {"a": wrong})
        assert await store.runs() == []
        assert await store.user_page("", 10) == []


async def test_a_run_of_another_process_keeps_the_store(tmp_path: Path) -> None:
    """Until its end, however sudden; reading goes on meanwhile."""
    path = tmp_path / "store.db"
    program = f"""if True:
        import asyncio
        from phygitals_async.refresh import SqliteStore

        async def main():
            async with SqliteStore({str(path)!r}) as store:
                await store.acquire()
                print("acquired", flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    with subprocess.Popen(  # noqa: ASYNC220 - it is only waited for until it has printed, and at its end.
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "acquired\n"
        async with SqliteStore(path) as store:
            with pytest.raises(StoreBusy, match=r"another run is under way on .*store\.db"):
                await refresh(api(), ["a"], store)
            assert await store.runs() == []
            other.kill()
            other.wait()
            assert (await refresh(api(), ["a"], store)).run.known == 1


def test_a_run_that_is_cancelled_while_the_thread_locks_the_store_gives_it_back(tmp_path: Path) -> None:
    """Cancelled as asyncio does it, which no scope keeps away from a thread."""

    async def main() -> None:
        async with SqliteStore(tmp_path / "store.db") as store:
            hold = threading.Event()
            holding = asyncio.create_task(store._thread.do(lambda _: hold.wait(60)))
            await asyncio.sleep(0)
            acquiring = asyncio.create_task(store.acquire())
            await asyncio.sleep(0)
            acquiring.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acquiring
            hold.set()
            await holding
            await store.acquire()

    asyncio.run(main())


async def test_everything_is_done_in_one_thread_that_ends_with_the_store(tmp_path: Path) -> None:
    """However many tasks use it at once."""
    before = {*threading.enumerate()}
    async with SqliteStore(tmp_path / "store.db") as store:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(fill, store, number)
        assert len(await store.user_page("", 100)) == 20
        (thread,) = (t for t in {*threading.enumerate()} - before if t.name.startswith("phygitals-store"))
    thread.join(10)
    assert not thread.is_alive()


async def test_a_store_may_be_used_in_one_loop_after_another(tmp_path: Path) -> None:
    """Such as in scripts that call `asyncio.run` several times."""
    store = SqliteStore(tmp_path / "store.db")
    for number in range(2):
        await anyio.to_thread.run_sync(lambda number=number: asyncio.run(fill(store, number)))  # type: ignore[misc]  # mypy knows no lambda's default.
    assert await store.user_page("", 10) == ["user_0", "user_1"]
    await store.aclose()


async def test_it_is_pickled_as_what_it_takes_to_open_it(tmp_path: Path) -> None:
    """In another process too."""
    async with SqliteStore(tmp_path / "store.db") as store:
        await fill(store, 0)
        async with pickle.loads(pickle.dumps(store)) as again:  # noqa: S301 - our own.
            assert await again.runs() == [RUN]


def test_a_store_is_opened_by_its_address(tmp_path: Path) -> None:
    """A path is a file's."""
    assert repr(open_store(tmp_path / "store.db")) == f"<SqliteStore {tmp_path / 'store.db'}>"
