"""The job around a bulk run: go on where it was, here or on many machines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve, frozen

from phygitals_async._bulk.fan_out import DEFAULT_LIMIT, DEFAULT_PATIENCE
from phygitals_async._extras import load
from phygitals_async._loop.waiting import wait_out
from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.refresh._report import RefreshReport
from phygitals_async.refresh._run import Job
from phygitals_async.refresh._sources import UserIds, check_ids, fingerprint, groups
from phygitals_async.refresh._store import Part, Run, Store, can_be_named

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
            users it has not looked up. By default the last run is gone on with if it has not finished and was begun
            with the same ids, and else a new one begins. Ids that can be read only once, from a pipe or an iterator,
            are told by the first 256 of them.
        resume: Whether to go on with an unfinished run of no given name, and not to begin a new one.
        limit: The most lookups in flight, as in `stream_inventories`.
        deadline: Seconds for each lookup from its turn on; by default the client's.
        patience: Seconds that one outage, or a limit, may last; 0 to wait for none.
        on_commit: Is called after each commit with the report so far, with `on` after each part, and
            once a second while there are new ones; what it raises ends the run.
        on: A `distributed.Client`, or the address of a Dask scheduler, such as "tcp://host:8786": the ids are cut into
            parts, of 256 users at first and 4,096 at most, and the workers look them up, each with a client and a store
            of its own. `limit` is then that of a part; a worker does as many at once as it has threads. It needs the
            extra `dask`, and asyncio.
        rate: With `on`, the most requests per second of all workers together: `api` is called with a `Budget` of the
            store as its `rate`. Here the client has its own.

    Raises:
        ConfigurationError: `limit` or a time is not what it should be, the extra is missing, there is no scheduler at
            the address, or a worker has no key.
        InvalidArgumentError: `user_ids` cannot be read, `run` is no name, the store has a later run than the one named,
            or `api` or `store` cannot go to workers.
        StoreBusy: Another run is under way on the store.
        StoreError: The store failed, or that of the client's budget; what was committed before is kept, and the run can
            be gone on with.
    """
    check_ids(user_ids)
    if run is not None and not can_be_named(run):
        msg = f"the name of a run must be a text of at least one character, not {run!r}"
        raise InvalidArgumentError(msg)
    options: dict[str, Any] = {"limit": limit, "deadline": deadline, "patience": patience}
    if on is None and rate is not None:
        msg = "rate= is that of the workers which on= names: give the client its own"
        raise InvalidArgumentError(msg)
    workers = None if on is None else _on_dask(api, store, on, options, rate)
    await store.acquire()
    try:
        beginning = _Beginning(store, user_ids, run, resume)
        if workers is None:
            report = await _look_up(api, beginning, options, on_commit)
        else:
            async with aclosing(groups(user_ids, store)) as source:
                first = await anext(source)
                begun, _ = await beginning.begin(first)
                report = await workers.look_up(begun, first, source, on_commit)
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
    beginning: _Beginning,
    options: dict[str, Any],
    on_commit: Callable[[RefreshReport], object] | None,
) -> RefreshReport:
    """Look everybody up in this process."""
    if callable(api):
        msg = "api must be a client, and what makes one where on= names a Dask cluster"
        raise InvalidArgumentError(msg)
    job = Job(beginning.store, on_commit)
    async with aclosing(job.wanted(beginning.groups(job))) as wanted:
        await job.work(api.stream_inventories(wanted, **options))
    return job.report()


@frozen
class _Beginning:
    """Finds the run to go on with, or begins one: the first ids tell which.

    Attributes:
        store: Keeps the run.
        user_ids: Whom it is of.
        name: Its name, or None.
        resume: Whether to go on with an unfinished run of no given name.
    """

    store: Store
    user_ids: UserIds | None
    name: str | None
    resume: bool

    async def groups(self, job: Job) -> AsyncGenerator[list[str], None]:
        """Yield the ids in groups; the job begins with the first one."""
        # They are read in one task, by which some are bound.
        async with aclosing(groups(self.user_ids, self.store)) as source:
            first = await anext(source)
            job.begin(*await self.begin(first))
            yield first
            async for group in source:
                yield group

    async def begin(self, first: list[str]) -> tuple[Run, Part]:
        """Return the run, and the part 0 of it, both of which the store has then.

        Raises:
            InvalidArgumentError: The store has a later run than the one named.
        """
        ids = await fingerprint(self.user_ids, first)
        runs = await self.store.runs(1 if self.name is None else None)
        run, kept = await self._last(runs, ids)
        if run is None:
            run, kept = self._new(runs), ids
        part = Part(0, kept or ids)
        await self.store.commit(run)
        await self.store.commit(run, part=part)
        return run, part

    async def _last(self, runs: Sequence[Run], ids: bytes) -> tuple[Run | None, bytes]:
        """Return the last run and the ids it was begun with, if it is to be gone on with."""
        if not runs:
            return None, b""
        last = runs[0]
        part = await self.store.part(last.number, 0)
        kept = b"" if part is None else part.ids
        is_left = self.name is None and self.resume and last.finished_at is None and kept == ids
        return (evolve(last, finished_at=None, failed=0) if is_left or last.name == self.name else None), kept

    def _new(self, runs: Sequence[Run]) -> Run:
        if any(run.name == self.name for run in runs):
            msg = f"the run {self.name!r} was followed by another, {runs[0].name!r}: give a new name"
            raise InvalidArgumentError(msg)
        number = runs[0].number + 1 if runs else 1
        now = datetime.now(UTC)
        return Run(number, self.name or f"{now:%Y%m%dT%H%M%SZ}-{number}", now)


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
