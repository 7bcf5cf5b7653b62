"""What a worker of a Dask cluster does for a refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import distributed

from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import ConfigurationError, PhygitalsError, StoreBusy, StoreUnavailable
from phygitals_async.refresh._budget import Budget
from phygitals_async.refresh._report import RefreshReport
from phygitals_async.refresh._run import Job
from phygitals_async.refresh._sources import groups
from phygitals_async.refresh._store import Part, Run, Store, uncounted


class RefreshPlugin(distributed.WorkerPlugin):
    """What a worker has for all parts of a run: a client and a store, which it opens when the first part comes."""

    def __init__(
        self,
        make: Callable[..., PhygitalsClient],
        store: Store,
        run: Run,
        options: dict[str, Any],
        rate: float | None,
    ) -> None:
        self._make = make
        self._rate = rate
        self._store = store
        self._run = uncounted(run)
        self._options = options

    def setup(self, worker: distributed.Worker) -> None:
        """Begin without anything."""
        self._worker = worker
        self._api: PhygitalsClient | None = None
        self._stopped_by: PhygitalsError | None = None
        self._parts = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_over = False

    async def teardown(self, worker: distributed.Worker) -> None:
        """End the parts in hand, which keep what was answered, and close both."""
        self._is_over = True
        try:
            if self._api is not None:
                await self._api.aclose()
            await self._idle.wait()
        finally:
            await self._store.aclose()

    async def look_up(self, part: Part, user_ids: list[str]) -> RefreshReport:
        """Look the users of a part up.

        Raises:
            Reschedule: This worker is closing: another one does it.
        """
        self._parts += 1
        self._idle.clear()
        try:
            report = await self._look_up(part, user_ids)
        finally:
            self._parts -= 1
            if not self._parts:
                self._idle.set()
        if self._is_over:
            raise distributed.Reschedule
        return report

    async def _look_up(self, part: Part, user_ids: list[str]) -> RefreshReport:
        if self._stopped_by is not None:
            # An outage is waited for once.
            return RefreshReport(self._run, stopped_by=self._stopped_by)
        await self._check_store()
        if self._api is None:
            self._api = self._client()
        job = Job(self._store)
        job.begin(self._run, part)
        async with aclosing(job.wanted(groups(user_ids, self._store))) as wanted:
            await job.work(self._api.stream_inventories(wanted, **self._options))
        report = job.report()
        self._stopped_by = report.stopped_by
        return report

    def _client(self) -> PhygitalsClient:
        try:
            return self._make() if self._rate is None else self._make(rate=Budget(self._store, self._rate))
        except ConfigurationError as error:
            msg = f"the worker {self._worker.address} cannot make a client, which its own environment sets up: {error}"
            raise ConfigurationError(msg) from None

    async def _check_store(self) -> None:
        runs = await self._store.runs(1)
        if not runs or (runs[0].number, runs[0].started_at) != (self._run.number, self._run.started_at):
            msg = (
                f"the worker {self._worker.address} finds no run {self._run.name!r} at the end of {self._store!r}: "
                "workers on several machines need a database that all of them can reach"
            )
            raise StoreUnavailable(msg)


async def look_up(plugin: str, part: Part, user_ids: list[str]) -> RefreshReport:
    """Look the users of a part up, on the worker that this runs on."""
    plugins: dict[str, Any] = distributed.get_worker().plugins
    if plugin not in plugins:
        msg = "another refresh ended this one on the cluster"
        raise StoreBusy(msg)
    report: RefreshReport = await plugins[plugin].look_up(part, user_ids)
    return report
