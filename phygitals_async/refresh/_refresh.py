"""The job around a bulk run: go on where it was, here or on many machines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve

from phygitals_async._bulk.fan_out import DEFAULT_LIMIT, DEFAULT_PATIENCE
from phygitals_async._extras import load
from phygitals_async._loop.waiting import wait_out
from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.refresh._report import RefreshReport
from phygitals_async.refresh._run import Job
from phygitals_async.refresh._sources import UserIds, check_ids
from phygitals_async.refresh._store import Run, Store

if TYPE_CHECKING:
    from phygitals_async.refresh._dask import DaskWorkers


class DaskClient(Protocol):
    """A `distributed.Client`, whose library is imported only where one is given."""

    scheduler: Any
    security: Any


async def refresh(
    api: PhygitalsClient | Callable[..., PhygitalsClient],
    user_ids: UserIds | None,
    store: Store,
    *,
    run: str | None = None,
    resume: bool = True,
    limit: int = DEFAULT_LIMIT,
    deadline: float | None = None,
    patience: float = DEFAULT_PATIENCE,
    on_commit: Callable[[RefreshReport], object] | None = None,
    on: DaskClient | str | None = None,
    rate: float | None = None,
) -> RefreshReport:
    """Look users up, keep each one's inventory as the last snapshot, and note what changed since the one before.

    A user's snapshot, changes and progress are committed together, up to 500 users at a time. Whatever ends a run,
    `kill -9` too: called again, it goes on where it was and tells nothing twice. Users are asked again only where the
    answer had not been committed. Memory stays flat, however many users there are.

    A lookup that fails costs that user's turn: the run goes on, and the next one asks again. A refused key, or an
    outage longer than `patience`, ends the run, and the report says so.

    Args:
        api: Looks the users up. With `on`, what makes such a client on a worker, without arguments: `PhygitalsClient`
            itself, which reads the worker's environment, or a function of a module that workers can import.
        user_ids: Any iterable or async iterable, read lazily in groups of 256; a path of a file with an id on each
            line; or None for the users the store knows. A repeated id is looked up once.
        store: Keeps what is found; one run at a time. With `on`, one that workers can open too: a `PostgresStore`, or
            an `SqliteStore` where all of them run on this machine.
        run: A name for the run. One that is there already is gone on with, also after it has finished: then it asks for
            users it has not looked up. By default the last run is gone on with if it has not finished, and else a new
            one begins.
        resume: Whether to go on with an unfinished run of no given name, and not to begin a new one.
        limit: The most lookups in flight, as in `stream_inventories`.
        deadline: Seconds for each lookup from its turn on; by default the client's.
        patience: Seconds that one outage, or a limit, may last; 0 to wait for none.
        on_commit: Is called after each commit with the report so far, with `on` after each part; what it raises ends
            the run.
        on: A `distributed.Client`, or the address of a Dask scheduler, such as "tcp://host:8786": the ids are cut into
            parts of 5,000, and the workers look them up, each with a client and a store of its own. `limit` is then
            that of a part; a worker does as many at once as it has threads. It needs the extra `dask`, and asyncio.
        rate: With `on`, the most requests per second of all workers together: `api` is called with a `Budget` of the
            store as its `rate`. Here the client has its own.

    Raises:
        ConfigurationError: `limit` or a time is not what it should be, the extra is missing, there is no scheduler at
            the address, or a worker has no key.
        InvalidArgumentError: `user_ids` cannot be read, the store has a later run than the one named, or `api` or
            `store` cannot go to workers.
        StoreBusy: Another run is under way on the store.
        StoreError: The store failed, or that of the client's budget; what was committed before is kept, and the run can
            be gone on with.
    """
    check_ids(user_ids)
    options: dict[str, Any] = {"limit": limit, "deadline": deadline, "patience": patience}
    if on is None and rate is not None:
        msg = "rate= is that of the workers which on= names: give the client its own"
        raise InvalidArgumentError(msg)
    workers = None if on is None else _on_dask(api, store, on, options, rate)
    await store.acquire()
    try:
        begun = await _begin(store, run, resume)
        if workers is None:
            report = await _look_up(api, user_ids, store, begun, options, on_commit)
        else:
            await store.commit(begun)
            report = await workers.look_up(begun, user_ids, on_commit)
        return await _finish(store, report, on_commit)
    finally:
        await wait_out(store.release)


def _on_dask(
    api: object, store: Store, on: DaskClient | str, options: dict[str, Any], rate: float | None
) -> DaskWorkers:
    load("distributed", "dask")
    from phygitals_async.refresh._dask import DaskWorkers

    return DaskWorkers(api, store, on, options, rate)


async def _look_up(
    api: PhygitalsClient | Callable[..., PhygitalsClient],
    user_ids: UserIds | None,
    store: Store,
    run: Run,
    options: dict[str, Any],
    on_commit: Callable[[RefreshReport], object] | None,
) -> RefreshReport:
    """Look everybody up in this process."""
    if callable(api):
        msg = "api must be a client, and what makes one where on= names a Dask cluster"
        raise InvalidArgumentError(msg)
    job = Job(store, run, on_commit)
    async with aclosing(job.wanted(user_ids)) as wanted:
        outcomes = api.stream_inventories(wanted, **options)
        await store.commit(run)
        await job.work(outcomes)
    return job.report()


async def _begin(store: Store, name: str | None, resume: bool) -> Run:
    """Return the run to go on with, or a new one."""
    runs = await store.runs(1 if name is None else None)
    last = runs[0] if runs else None
    if last is not None and (last.name == name or (name is None and resume and last.finished_at is None)):
        return evolve(last, finished_at=None, failed=0)
    if any(run.name == name for run in runs):
        msg = f"the run {name!r} was followed by another, {runs[0].name!r}: give a new name"
        raise InvalidArgumentError(msg)
    number = 1 if last is None else last.number + 1
    now = datetime.now(UTC)
    return Run(number, name or f"{now:%Y%m%dT%H%M%SZ}-{number}", now)


async def _finish(
    store: Store, report: RefreshReport, on_commit: Callable[[RefreshReport], object] | None
) -> RefreshReport:
    """Note how the run ended, and whether."""
    now = datetime.now(UTC) if report.stopped_by is None else None
    report = evolve(report, run=evolve(report.run, finished_at=now, failed=report.failed))
    await store.commit(report.run)
    if on_commit is not None:
        on_commit(report)
    return report
