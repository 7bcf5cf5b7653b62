"""A refresh on a Dask cluster: its parts are tasks, each on the event loop of its worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import distributed
from attrs import evolve
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from phygitals_async._checks import check_count, check_patience, check_seconds
from phygitals_async._loop.affinity import current_task
from phygitals_async._loop.waiting import wait_out
from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    NotAttempted,
    PhygitalsError,
    StoreError,
)
from phygitals_async.observer import logger
from phygitals_async.refresh._budget import Budget
from phygitals_async.refresh._dask_parts import digest, in_parts
from phygitals_async.refresh._dask_worker import RefreshPlugin, look_up
from phygitals_async.refresh._report import RefreshReport
from phygitals_async.refresh._run import MOST_FAILURES
from phygitals_async.refresh._store import Run, Store, plus

# Seconds between two looks at how far the workers are, and whether there are any.
_LOOK: Final = 1.0
# Seconds without workers until it is told: what a client knows of them may be two seconds old.
_ALONE: Final = 5.0
# So many parts are in hand for each thread of the workers: one that is looked up, and one that waits for it.
_PARTS_PER_THREAD: Final = 2
# Most of it has no types.
_dask: Any = distributed


class DaskWorkers:
    """Look the users of a run up, on the workers of a cluster.

    Args:
        api: Makes a client on a worker.
        store: Where the run is kept, to be opened by the workers too.
        on: A client of Dask's, or the address of its scheduler.
        options: How each part is looked up.
        rate: The most requests per second of all workers together, or None.

    Raises:
        ConfigurationError: An option is not what it should be, or the event loop is none of asyncio's.
        InvalidArgumentError: One of the others is not.
    """

    def __init__(self, api: Any, store: Store, on: Any, options: dict[str, Any], rate: float | None) -> None:
        if current_task() is None:
            msg = "a refresh on a Dask cluster works with asyncio only"
            raise ConfigurationError(msg)
        check_count("limit", options["limit"])
        check_patience(options["patience"])
        if options["deadline"] is not None:
            check_seconds("deadline", options["deadline"])
        if rate is not None:
            Budget(store, rate)
        _check_named(api)
        self._api = api
        self._store = store
        # The same for every run on a store: whatever a run before it left on the workers makes way.
        self._name = f"phygitals-refresh-{digest(_pickled(store)).hex()}"
        self._address, self._security = _where(on)
        self._options = options
        self._rate = rate

    async def look_up(
        self,
        run: Run,
        first: list[str],
        others: AsyncIterator[list[str]],
        on_commit: Callable[[RefreshReport], object] | None,
    ) -> RefreshReport:
        """Return what was done, with the counts of the run as the store has them.

        Args:
            run: The run, which the store has already.
            first: The first of the ids.
            others: The rest of them, some at a time.
            on_commit: Is called after each part with the report so far.

        Raises:
            ConfigurationError: There is no scheduler, or a worker cannot make a client.
            StoreError: The store failed, here or on a worker.
        """
        cluster = await self._connect()
        parts = _Parts(cluster, self._name, self._store, run, on_commit, patience=self._options["patience"])
        try:
            plugin = RefreshPlugin(self._api, self._store, run, self._options, self._rate)
            # A worker that dies meanwhile has it when it comes back; a scheduler does not take the parts either.
            with suppress(OSError):
                await cluster.register_plugin(plugin, name=self._name)
            await parts.look_up(first, others)
        except asyncio.CancelledError:  # What the workers commit at their end is done. Passed on.
            await wait_out(parts.leave)
            with suppress(StoreError):
                await parts.tell()
            raise
        finally:
            await wait_out(parts.leave)
        (last,) = await self._store.runs(1)
        return evolve(parts.report, run=last)

    async def _connect(self) -> Any:
        """Return a client of our own: what is in hand ends with it, whatever else runs on the cluster."""
        client: Any = _dask.Client(self._address, security=self._security, asynchronous=True, set_as_default=False)
        try:
            await client
        except (OSError, ValueError) as error:
            await client.close()
            msg = f"no Dask scheduler answers at {self._address}: {error}"
            raise ConfigurationError(msg) from error
        return client


class _Parts:
    """The parts that the workers have in hand."""

    def __init__(
        self,
        cluster: Any,
        plugin: str,
        store: Store,
        run: Run,
        on_commit: Callable[[RefreshReport], object] | None,
        *,
        patience: float,
    ) -> None:
        self._cluster = cluster
        self._plugin = plugin
        self._store = store
        self._on_commit = on_commit
        self._patience = patience
        # As the store had it when this was last told.
        self._before = self._told = run.done
        # Since when there are no workers, in the loop's seconds.
        self._alone_since: float | None = None
        self._is_alone_told = False
        self._in_hand: set[Any] = set()
        self._completed = _dask.as_completed(loop=cluster.loop)
        self.report = RefreshReport(run)

    async def look_up(self, first: list[str], others: AsyncIterator[list[str]]) -> None:
        """Hand out one part after the other, few at a time, and wait for all of them."""
        async with aclosing(in_parts(first, others)) as parts:
            async for part, ids in parts:
                kept = await self._store.part(self.report.run.number, part.number)
                if kept is not None and kept.is_done and kept.ids == part.ids:
                    self.report = evolve(self.report, skipped=self.report.skipped + len(ids))
                    continue
                while len(self._in_hand) >= self._room:
                    await self._next()
                if self.report.stopped_by is not None:
                    break
                future = self._cluster.submit(look_up, self._plugin, part, ids, pure=False)
                self._in_hand.add(future)
                self._completed.add(future)
        while self._in_hand:
            await self._next()

    async def leave(self) -> None:
        """End what is still in hand, have the workers close what they opened, and close the client."""
        try:
            if self._cluster.status == "running":
                # Where the scheduler goes meanwhile, they are gone with it; another refresh may have ended this one.
                with suppress(OSError, KeyError, ValueError):
                    await self._cluster.cancel(list(self._in_hand), force=True)
                    await self._cluster.unregister_worker_plugin(self._plugin)
        finally:
            await self._cluster.close()

    @property
    def _room(self) -> int:
        """How many parts may be in hand: workers come and go."""
        return _PARTS_PER_THREAD * max(self._threads, 1)

    @property
    def _threads(self) -> int:
        """How many threads the workers have; their list is kept short or empty for an asynchronous client."""
        threads: int = self._cluster.scheduler_info()["total_threads"]
        return threads

    async def tell(self) -> None:
        """Tell what the workers have committed of the parts in hand."""
        (run,) = await self._store.runs(1)
        if run.done == self._told or self._on_commit is None:
            return
        self._told = run.done
        self._on_commit(evolve(self.report, run=run, asked=run.done - self._before + self.report.failed))

    async def _check_workers(self) -> None:
        """Say where there are no workers, and give the parts back where none comes."""
        if self._threads:
            self._alone_since = None
            return
        now = asyncio.get_running_loop().time()
        address = self._cluster.scheduler.address
        if self._alone_since is None:
            self._alone_since = now
        alone = now - self._alone_since
        if alone >= _ALONE and not self._is_alone_told:
            self._is_alone_told = True
            logger.error("the cluster at %s has no workers: waiting %g s for some", address, self._patience)
        if alone >= max(_ALONE, self._patience) and self.report.stopped_by is None:
            stopped = NotAttempted(f"the cluster at {address} has no workers")
            self.report = evolve(self.report, stopped_by=stopped)
            await self._cluster.cancel(list(self._in_hand), force=True)

    async def _completed_part(self) -> Any:
        """Return the next part to be done; meanwhile, look now and then how far the workers are."""
        while True:
            try:
                async with asyncio.timeout(_LOOK):
                    return await anext(self._completed)
            except TimeoutError:
                await self.tell()
                await self._check_workers()

    async def _next(self) -> None:
        """Take what came of the next part to be done."""
        future = await self._completed_part()
        self._in_hand.discard(future)
        try:
            done: RefreshReport = await future
        except (concurrent.futures.CancelledError, CommClosedError, KilledWorker) as error:
            lost = NotAttempted(f"the cluster gave parts back: {error}")
            lost.__cause__ = error
            self.report = evolve(self.report, stopped_by=_worse(self.report.stopped_by, lost))
            return
        report = self.report
        self.report = RefreshReport(
            plus(report.run, done.run),
            report.asked + done.asked,
            report.skipped + done.skipped,
            report.failed + done.failed,
            (*report.failures, *done.failures)[:MOST_FAILURES],
            _worse(report.stopped_by, done.stopped_by),
        )
        self._told = self.report.run.done
        if self._on_commit is not None:
            self._on_commit(self.report)


def _check_named(api: Any) -> None:
    if isinstance(api, PhygitalsClient):
        msg = "a client cannot go to workers: give what makes one there, such as PhygitalsClient itself"
        raise InvalidArgumentError(msg)
    # What is found by its name alone holds no key that would travel.
    with suppress(pickle.PicklingError, AttributeError):
        if inspect.isclass(api) or inspect.isfunction(api):
            pickle.dumps(api)
            return
    msg = "what makes clients on workers must be a class or a function of a module, such as PhygitalsClient itself"
    raise InvalidArgumentError(msg)


def _pickled(store: Store) -> bytes:
    try:
        return pickle.dumps(store)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        msg = f"workers cannot open this store: {error}"
        raise InvalidArgumentError(msg) from error


def _where(on: Any) -> tuple[str, Any]:
    if isinstance(on, _dask.Client) and on.scheduler is not None:
        return on.scheduler.address, on.security
    if not isinstance(on, str) or not on:
        msg = "on= takes a distributed.Client that was started, or the address of a scheduler"
        raise InvalidArgumentError(msg)
    return on, None


def _worse(one: PhygitalsError | None, other: PhygitalsError | None) -> PhygitalsError | None:
    """Return which of two says more about why a run ended: the refused key."""
    return other if one is None or isinstance(other, AuthenticationError) else one
