"""A refresh on a Dask cluster whose workers are on the test's own event loop; `test_kills.py` has the other kind."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

import dask_support
from dask_support import client, cluster, new_world, no_client
from phygitals_async import (
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    NotAttempted,
    PhygitalsClient,
    Response,
    ServerError,
    StoreBusy,
    StoreUnavailable,
)
from phygitals_async.refresh import MemoryStore, RefreshReport, SqliteStore, read_changes, read_inventories, refresh
from phygitals_async.refresh._dask_parts import in_parts
from phygitals_async.refresh._sources import groups

dask_config: Any = pytest.importorskip("dask.config", reason="not run: dask is not installed")
dask: Any = pytest.importorskip("distributed", reason="not run: distributed is not installed")

pytestmark = pytest.mark.asyncio

IDS = [f"user_{number}" for number in range(100)]
# It needs the library.
_dask: Any = importlib.import_module("phygitals_async.refresh._dask")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phygitals_async.refresh._dask_parts._FIRST_PART_USERS", 10)
    monkeypatch.setattr("phygitals_async.refresh._dask_parts._MOST_PART_USERS", 10)
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store is."""
    return tmp_path / "store.db"


async def told(store: SqliteStore, since: str | None = None) -> list[tuple[str, str]]:
    """Return who changed how."""
    return sorted([(change.user_id, str(change.kind)) async for change in read_changes(store, since=since)])


async def test_a_run_on_two_workers(path: Path) -> None:
    """It keeps and tells what one on one machine would, and so does the one that goes on with it."""
    world = new_world(95)
    reports: list[RefreshReport] = []
    async with cluster() as workers, SqliteStore(path) as store:
        report = await refresh(client, IDS, store, run="first", on=workers.scheduler_address, on_commit=reports.append)
        assert (report.run.known, report.run.unknown, report.run.changes, report.asked) == (95, 5, 100, 100)
        assert (report.stopped_by, report.failed, report.resumable) == (None, 0, False)
        assert [one.run.done for one in reports] == [*range(10, 101, 10), 100]
        assert sorted(world.asked) == sorted(IDS)
        assert len(world.clients) == 2
        assert [i.user_id async for i in read_inventories(store)] == sorted(IDS[:95])
        assert await told(store) == sorted((one, "new user" if one in IDS[:95] else "unknown user") for one in IDS)
        for number in (3, 97):
            world.give(IDS[number])
        report = await refresh(client, IDS, store, run="second", on=workers.scheduler_address)
        assert await told(store, since="first") == [("user_3", "bought"), ("user_97", "new user")]
        assert await store.runs() == [report.run, reports[-1].run]
        # Here again: nobody is asked twice.
        world.asked.clear()
        report = await refresh(client(), [*IDS, "more"], store, run="second")
        assert (world.asked, report.skipped, report.run.unknown) == (["more"], 100, 5)
    for made in world.clients[:-1]:
        with pytest.raises(Exception, match="closed"):
            await made.get_inventory("user_1")
    await world.clients[-1].aclose()


async def test_the_workers_share_a_rate(path: Path) -> None:
    """It is a budget of the store, which tells how much they have reserved of it."""
    new_world(10)
    async with cluster() as workers, SqliteStore(path) as store:
        report = await refresh(client, IDS[:20], store, on=workers.scheduler_address, rate=200.0)
        assert report.run.done == 20
        ((reserved,),) = await store._read("SELECT count(*) FROM budgets WHERE name = 'default'")
        assert reserved == 1


async def test_a_part_that_is_done_is_not_even_read(path: Path) -> None:
    """But one that failed is, and one of other users."""
    world = new_world(100)
    world.faults["user_15"] = Response(500, {}, b"")
    async with cluster() as workers, SqliteStore(path) as store:
        first = await refresh(client, IDS, store, run="first", on=workers.scheduler_address, patience=0)
        assert (first.failed, first.run.failed, first.run.done) == (1, 1, 99)
        assert [(failure.key, type(failure.error)) for failure in first.failures] == [("user_15", ServerError)]
        world.faults.clear()
        world.asked.clear()
        async with dask.Client(workers, asynchronous=True) as given:
            again = await refresh(client, IDS, store, run="first", on=given)
        assert (world.asked, again.asked, again.skipped) == (["user_15"], 1, 99)
        assert (again.run.done, again.run.failed) == (100, 0)
        world.asked.clear()
        third = await refresh(client, ["more", *IDS], store, run="first", on=workers.scheduler_address)
        assert (world.asked, third.asked, third.skipped, third.run.done) == (["more"], 1, 100, 101)
        assert len(await told(store)) == 101


@pytest.mark.parametrize("users", [0, 9, 10, 11, 255, 256, 257, 512, 1000])
async def test_parts_are_small_at_first_and_grow(monkeypatch: pytest.MonkeyPatch, users: int) -> None:
    """The same ids make the same parts, however many workers there are."""
    monkeypatch.setattr("phygitals_async.refresh._dask_parts._MOST_PART_USERS", 40)
    monkeypatch.setattr("phygitals_async.refresh._dask_parts._PARTS_OF_A_SIZE", 3)
    ids = [f"user_{number}" for number in range(users)]
    async with aclosing(groups(ids, MemoryStore())) as source:
        parts = [part async for part in in_parts(await anext(source), source)]
    assert [user_id for _, some in parts for user_id in some] == ids
    assert [part.number for part, _ in parts] == list(range(1, len(parts) + 1))
    sizes = [10, 10, 10, 20, 20, 20, *[40] * 30]
    assert all(len(some) == size for (_, some), size in zip(parts[:-1], sizes, strict=False))


async def test_a_user_in_two_parts_is_told_of_once(path: Path) -> None:
    """However the two meet, here on a worker that does two parts at once."""
    new_world(100)
    async with cluster(1, threads=2) as workers, SqliteStore(path) as store:
        report = await refresh(client, [*IDS[:10], *IDS[:10], *IDS], store, on=workers.scheduler_address)
        assert (report.run.known, report.run.changes) == (100, 100)
        assert len(await told(store)) == 100


async def test_a_refused_key_ends_the_run_and_it_can_be_gone_on_with(path: Path) -> None:
    """No more parts are handed out, and those that wait are given back."""
    world = new_world(100)
    world.faults = dict.fromkeys(IDS[:30], Response(401, {}, b'{"error": "Invalid API key"}'))
    read = []

    def source() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield f"user_{number}"

    async with cluster() as workers, SqliteStore(path) as store:
        report = await refresh(client, source(), store, run="today", on=workers.scheduler_address)
        assert isinstance(report.stopped_by, AuthenticationError)
        assert (report.resumable, report.failed) == (True, 0)
        assert len(read) <= 512
        # The parts that waited on the same worker asked nobody.
        assert len(world.asked) < 60
        world.faults.clear()
        report = await refresh(client, IDS, store, run="today", on=workers.scheduler_address)
        assert (report.run.number, report.run.known, report.resumable) == (1, 100, False)
        assert len(await told(store)) == 100


@pytest.mark.parametrize(
    ("make", "error"), [(no_client, KeyError), (PhygitalsClient, ConfigurationError)], ids=["bug", "no key"]
)
async def test_what_fails_on_a_worker_comes_out(path: Path, make: Any, error: type[Exception]) -> None:
    """A bug, and a worker without a key; nothing goes on."""
    async with cluster() as workers, SqliteStore(path) as store:
        with pytest.raises(error):
            await refresh(make, IDS, store, on=workers.scheduler_address)
        await store.acquire()


async def test_a_worker_without_a_key_says_that_it_is_the_worker(path: Path) -> None:
    """Here there is one."""
    async with cluster(1) as workers, SqliteStore(path) as store:
        (worker,) = workers.workers.values()
        with pytest.raises(
            ConfigurationError, match=f"the worker {worker.address} cannot make a client, .* no API key"
        ):
            await refresh(PhygitalsClient, IDS, store, on=workers.scheduler_address)


async def test_what_workers_commit_is_told_before_their_parts_are_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then, and where a cancellation ends them as well."""
    monkeypatch.setattr("phygitals_async.refresh._dask._LOOK", 0.01)
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_SECONDS", 0.0)
    world = new_world(100)
    reports: list[RefreshReport] = []
    seen = asyncio.Event()

    def note(report: RefreshReport) -> None:
        reports.append(report)
        seen.set()

    async def answer(request: Any) -> Response:
        # The others wait until somebody has heard of the first five.
        if len(world.asked) >= 5:
            world.gate.clear()
        return await answers(request)

    answers = world.answer
    monkeypatch.setattr(world, "answer", answer)
    async with cluster(1) as workers, SqliteStore(path) as store:
        running = asyncio.create_task(
            refresh(client, IDS, store, on=workers.scheduler_address, on_commit=note, limit=1)
        )
        await seen.wait()
        assert 0 < reports[0].asked == reports[0].run.done < 10
        running.cancel()
        await asyncio.wait([running], timeout=0.05)
        world.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        (run,) = await store.runs()
        assert reports[-1].asked == reports[-1].run.done == run.done
        assert [report.run.done for report in reports] == sorted({report.run.done for report in reports})


async def test_a_cluster_without_workers(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of, waited for, and ends the run, which can be gone on with."""
    monkeypatch.setattr("phygitals_async.refresh._dask._LOOK", 0.01)
    monkeypatch.setattr("phygitals_async.refresh._dask._ALONE", 0.04)
    check, seen = _dask._Parts._check_workers, list[bool]()

    async def note(parts: Any) -> None:
        await check(parts)
        seen.append(parts._alone_since is None)

    monkeypatch.setattr(_dask._Parts, "_check_workers", note)
    world = new_world(100)
    world.gate.clear()
    async with cluster(0) as workers, SqliteStore(path) as store:
        report = await refresh(client, IDS, store, on=workers.scheduler_address, patience=0.05)
        assert (str(report.stopped_by), report.resumable) == (
            f"the cluster at {workers.scheduler_address} has no workers",
            True,
        )
        (line,) = (record.getMessage() for record in caplog.records if record.name == "phygitals_async")
        assert line == f"the cluster at {workers.scheduler_address} has no workers: waiting 0.05 s for some"
        running = asyncio.create_task(refresh(client, IDS, store, on=workers.scheduler_address))
        while len(caplog.records) < 2:  # noqa: ASYNC110 - nothing else tells that it waits.
            await asyncio.sleep(0.01)
        workers.scale(1)
        # What it knows of the workers is a little old.
        while not seen[-1]:  # noqa: ASYNC110 - as above.
            await asyncio.sleep(0.01)
        world.gate.set()
        report = await running
        assert (report.run.number, report.run.done, report.resumable) == (1, 100, False)


async def test_cancelling_ends_the_parts_and_keeps_what_was_answered(path: Path) -> None:
    """And gives the store back."""
    world = new_world(100)
    async with cluster() as workers, SqliteStore(path) as store:
        committed = asyncio.Event()

        def close(_: RefreshReport) -> None:
            world.gate.clear()
            committed.set()

        running = asyncio.create_task(
            refresh(client, IDS, store, on=workers.scheduler_address, on_commit=close, limit=2)
        )
        await committed.wait()
        await world.until_waiting(2)
        running.cancel()
        # The workers' clients give what is in flight a moment, and it is answered within.
        await asyncio.wait([running], timeout=0.05)
        assert not running.done()
        world.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        (run,) = await store.runs()
        assert 10 <= run.done < 100
        assert len(await told(store)) == run.done
        # What was committed at the end was told, and closed it again.
        world.gate.set()
        report = await refresh(client, IDS, store, on=workers.scheduler_address)
        assert (report.run.number, report.run.known) == (1, 100)
        assert len(await told(store)) == 100


async def test_what_on_commit_raises_ends_the_run(path: Path) -> None:
    """As it does on one machine."""
    new_world(100)

    def fail(_: RefreshReport) -> None:
        raise KeyError("a bug of the caller's")

    async with cluster() as workers, SqliteStore(path) as store:
        with pytest.raises(KeyError):
            await refresh(client, IDS, store, on=workers.scheduler_address, on_commit=fail)
        assert (await refresh(client, IDS, store, on=workers.scheduler_address)).run.known == 100


async def test_a_worker_that_is_closed_gives_its_parts_back(path: Path) -> None:
    """Another one does them; what it had is kept."""
    world = new_world(100)
    world.gate.clear()
    async with cluster(3) as workers, SqliteStore(path) as store:
        running = asyncio.create_task(refresh(client, IDS, store, on=workers.scheduler_address, limit=2))
        await world.until_waiting(6)
        closing = asyncio.create_task(next(iter(workers.workers.values())).close_gracefully())
        await asyncio.sleep(0)
        world.gate.set()
        report = await running
        await closing
        assert (report.run.known, report.run.changes, report.stopped_by) == (100, 100, None)
        assert len(await told(store)) == 100


async def test_a_scheduler_that_goes_away_ends_the_run(path: Path) -> None:
    """It can be gone on with, on another cluster or on none."""
    world = new_world(100)
    world.gate.clear()
    # The cluster looks for its scheduler as long as that.
    brief = dask_config.set({"distributed.comm.timeouts.connect": "1s"})
    async with SqliteStore(path) as store:
        with brief:
            async with cluster() as workers:
                running = asyncio.create_task(refresh(client, IDS, store, on=workers.scheduler_address, limit=2))
                await world.until_waiting(4)
                await workers.scheduler.close()
                world.gate.set()
                report = await running
        assert isinstance(report.stopped_by, NotAttempted)
        assert report.resumable
        async with client() as api:
            assert (await refresh(api, IDS, store)).run.known == 100
        assert len(await told(store)) == 100


async def test_a_refresh_that_another_one_ended(path: Path) -> None:
    """The plugin of a run on the same store is gone, however that came: its parts are not looked up."""
    world = new_world(100)
    async with cluster(1) as workers, SqliteStore(path) as store:
        world.gate.clear()
        running = asyncio.create_task(refresh(client, IDS, store, on=workers.scheduler_address, limit=2))
        await world.until_waiting(2)
        (worker,) = workers.workers.values()
        (name,) = (name for name in worker.plugins if name.startswith("phygitals"))
        removing = asyncio.create_task(worker.plugin_remove(name=name))
        await asyncio.sleep(0)
        world.gate.set()
        await removing
        with pytest.raises(StoreBusy, match="another refresh ended this one"):
            await running


class Elsewhere(SqliteStore):
    """A file whose folder is another one on each machine."""

    def __reduce__(self) -> tuple[object, ...]:
        return SqliteStore, (self._path.with_name("another.db"),)


async def test_a_worker_that_does_not_see_the_store(path: Path) -> None:
    """Nothing is looked up into the wrong one."""
    world = new_world(100)
    async with SqliteStore(path.with_name("another.db")) as another:
        assert await another.runs() == []
    async with cluster() as workers, Elsewhere(path) as store:
        with pytest.raises(StoreUnavailable, match="workers on several machines need a database"):
            await refresh(client, IDS, store, on=workers.scheduler_address)
    assert world.asked == []


def _local() -> Callable[[], PhygitalsClient]:
    def local() -> PhygitalsClient:
        return client()

    return local


async def test_what_cannot_go_to_workers_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The key above all: what holds one does not travel."""
    new_world()
    on = "tcp://127.0.0.1:1"
    async with cluster(1) as workers, dask.Client(workers, asynchronous=True) as closed:
        pass
    async with client() as api, SqliteStore(tmp_path / "store.db") as store:
        with pytest.raises(InvalidArgumentError, match="a client cannot go to workers"):
            await refresh(api, IDS, store, on=on)
        for make in (lambda: api, _local(), functools.partial(PhygitalsClient, api_key="sandbox-test")):
            with pytest.raises(InvalidArgumentError, match="a class or a function of a module"):
                await refresh(make, IDS, store, on=on)
        with pytest.raises(InvalidArgumentError, match="workers cannot open this store: a MemoryStore"):
            await refresh(client, IDS, MemoryStore(), on=on)
        wrong: Any
        for wrong in (5, "", closed):
            with pytest.raises(InvalidArgumentError, match=r"on= takes a distributed.Client"):
                await refresh(client, IDS, store, on=wrong)
        refused: Any
        for refused in ({"limit": 0}, {"patience": -1}, {"deadline": 0}, {"rate": 0}):
            with pytest.raises(ConfigurationError):
                await refresh(client, IDS, store, on=on, **refused)
        with pytest.raises(InvalidArgumentError, match="give the client its own"):
            await refresh(api, IDS, store, rate=100.0)
        with pytest.raises(ConfigurationError, match="asyncio only"):
            await asyncio.to_thread(trio.run, functools.partial(refresh, client, IDS, store, on=on))
        assert await store.runs() == []


async def test_no_scheduler(path: Path) -> None:
    """It is told where none was found."""
    async with SqliteStore(path) as store:
        with dask_config.set({"distributed.comm.timeouts.connect": "50ms"}):
            for address in ("tcp://127.0.0.1:1", "nonsense://nonsense"):
                with pytest.raises(ConfigurationError, match=f"no Dask scheduler answers at {address}"):
                    await refresh(client, IDS, store, on=address)
        await store.acquire()


async def test_the_library_is_an_extra(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, it is told how to get it."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'phygitals-async\[dask\]'"):
        await refresh(client, IDS, SqliteStore(path), on="tcp://127.0.0.1:1")


async def test_the_functions_that_the_tests_give_are_found_by_name() -> None:
    """As those of an application are."""
    assert sys.modules[client.__module__] is dask_support
