"""The workers of a bulk run: they take keys, look them up, and set the outcomes out; in an outage, they wait."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from phygitals_async._bulk.keys import END, SKIPPED, End, Skipped
from phygitals_async._bulk.outages import Suspect
from phygitals_async._bulk.queues import Queues
from phygitals_async._bulk.tasks import Tasks
from phygitals_async._bulk.triage import Triage
from phygitals_async._calls.lookups import Counts, Lookup, Run, current_lookup
from phygitals_async._loop.clocks import Clock
from phygitals_async._loop.contexts import in_context
from phygitals_async._loop.loops import Loop
from phygitals_async.errors import PhygitalsError
from phygitals_async.observer import logger

K = TypeVar("K")

# Seconds that the next key may be in coming before suspects are seen to without it.
_GRACE: Final = 0.2


class Workers(Generic[K]):
    """Looks up every key of a source.

    Args:
        fetch: The lookup.
        keys: The keys.
        limit: The most lookups in flight; at most twice as many keys are read and not taken as outcomes.
        distinct: Whether to leave a repeated key out.
        patience: Seconds to wait for an outage to end, or a limit; see `Outages`.
        drop: Is given what a lookup brought, and nobody takes.
        clock: Where the time comes from.

    Attributes:
        counts: Of the run.
        queues: Keys to look up, and outcomes to be taken.
        tasks: The workers, and the feeder of an async source; to be had after `start`.
        is_entered: Whether it was started.
    """

    tasks: Tasks

    def __init__(
        self,
        fetch: Callable[[K], Awaitable[Any]],
        keys: Iterable[K] | AsyncIterable[K],
        *,
        limit: int,
        distinct: bool,
        patience: float,
        drop: Callable[[Any], None],
        clock: Clock,
    ) -> None:
        self.counts = Counts()
        self.queues = Queues(keys, limit=limit, distinct=distinct)
        self.is_entered = False
        self._run = Run(self.counts, patience)
        self._triage = Triage(self._run, self.queues)
        self._fetch = fetch
        self._drop = drop
        self._clock = clock
        self._limit = limit
        self._workers = 0
        self._probing = False

    @property
    def is_unfinished(self) -> bool:
        """Whether leaving now loses outcomes."""
        return bool(self.tasks or self.queues.outcomes)

    @property
    def ended_by(self) -> PhygitalsError | None:
        """Return why the run ended before its keys did."""
        return self._triage.ended_by

    def start(self) -> None:
        """Start in the context of the task that runs now: the source is read in it, lookups in fresh copies of it."""
        self.is_entered = True
        self._loop: Loop = self._clock.loop()
        self.tasks = Tasks(self._loop, self.queues.wake_all)
        self.queues.start(self.tasks)
        self._context = copy_context()
        self.tasks.mark(self._context)
        self._outer = current_lookup.get()
        if self.queues.is_async:
            self.tasks.start(self._feed, self.queues.context)
        else:
            self._start_worker()

    async def stop(self) -> None:
        """End all tasks, drop what nobody has taken, and close the source.

        A lookup or the source that ends its own run is cancelled with the others, and whoever leaves the run waits.
        """
        try:
            await self.tasks.stop()
        finally:
            if not self.tasks:
                while self.queues.outcomes:
                    _, brought, failure = self.queues.outcomes.popleft()
                    if failure is None:
                        self._drop(brought)
                self.queues.close()

    def _start_worker(self) -> None:
        self._workers += 1
        self.tasks.start(self._work, self._context.copy())

    async def _feed(self) -> None:
        """Read an async iterable, in one task: it may open scopes that no other task may leave."""
        try:
            while not self.tasks.stopping:
                if self._triage.outages.ongoing:
                    await self._triage.up_again.wait()
                elif not self.queues.may_read:
                    await self._wait_for_room()
                elif not await self.queues.read_key():
                    return
                elif not self.queues.key_ready.notify() and self._workers < self._limit:
                    self._start_worker()
        finally:
            await self.queues.aclose()

    async def _work(self) -> None:
        try:
            while (suspect := await self._next()) is not END:
                if not self._triage.is_over_for(suspect):
                    await self._look_up(suspect)
        finally:
            self._workers -= 1

    async def _next(self) -> Suspect[K] | End:
        """Return what to look up next, once the server is up and there is room for the outcome."""
        queues, triage = self.queues, self._triage
        while not self.tasks.stopping:
            if triage.outages.ongoing:
                await self._sit_out()
            elif queues.keys:
                return Suspect(queues.keys.popleft())
            elif self._needs_room:
                await self._wait_for_room()
            elif triage.again:
                return self._take_again()
            elif queues.is_async and not queues.ended:
                await self._wait_for_key()
            elif (key := self._take_key()) is SKIPPED:
                await anyio.lowlevel.checkpoint()
            elif key is not END:
                return Suspect(key)
            elif not triage.settle(self._loop.now()):
                return END
        return END

    @property
    def _needs_room(self) -> bool:
        # What was fed has its room already.
        return self.queues.is_full and (bool(self._triage.again) or not self.queues.is_async)

    async def _wait_for_room(self) -> None:
        await self.queues.wait_for_room()
        # The feeder and those who look up again wait for the same room, and one of them alone was woken.
        if self.queues.is_async and not self.queues.is_full:
            self.queues.pass_room_on()

    def _take_again(self) -> Suspect[K]:
        self.queues.reserve()
        suspect = self._triage.again.popleft()
        if self._triage.again and self._workers < self._limit:
            self._start_worker()
        return suspect

    async def _wait_for_key(self) -> None:
        if not self._triage.outages.suspects or self.counts.in_flight:
            await self.queues.key_ready.wait()
            return
        # The next key would show whose fault it was. But it may be long in coming.
        with anyio.move_on_after(_GRACE) as scope:
            await self.queues.key_ready.wait()
        if scope.cancelled_caught:
            self._triage.settle(self._loop.now())

    def _take_key(self) -> K | End | Skipped:
        """Take a key from an iterable, and see that another worker takes the one after it."""
        key = self.queues.take_key()
        if key is not END and key is not SKIPPED and self._workers < self._limit and not self.queues.ended:
            self._start_worker()
        return key

    async def _look_up(self, suspect: Suspect[K]) -> None:
        lookup = Lookup(self._run, self._outer)
        number = self._triage.number()
        brought: Any = None
        error: PhygitalsError | None = None
        self.counts.in_flight += 1
        try:
            brought = await self._fetch_in_context(lookup, suspect.key)
        except PhygitalsError as failure:
            error = failure
        finally:
            self.counts.in_flight -= 1
        if error is None:
            self._triage.looked_up(suspect, brought, number, lookup)
        else:
            self._triage.failed(suspect, error, number, lookup, self._loop.now())

    def _fetch_in_context(self, lookup: Lookup, key: K) -> Awaitable[Any]:
        context = self._context.copy()
        context.run(current_lookup.set, lookup)
        return in_context(context, self._fetch, key)

    async def _sit_out(self) -> None:
        """Wait until the server is up again: one worker looks whether it is, the others wait for that."""
        triage = self._triage
        if self._probing:
            await triage.up_again.wait()
            return
        self._probing = True
        try:
            while triage.outages.ongoing and not self.tasks.stopping:
                pause = triage.outages.pause(self._loop.now())
                if pause is None:
                    triage.lose_patience()
                    continue
                if pause and not self.counts.waiting:
                    self.counts.waiting = True
                    logger.warning(
                        "a bulk run waits, for at most %g s: the server, or the store of a shared rate, is down "
                        "or asks for a pause",
                        self._run.patience,
                    )
                await self._clock.sleep(pause)
                await self._probe()
        finally:
            self._probing = self.counts.waiting = False
            triage.up_again.notify_all()

    async def _probe(self) -> None:
        """Look up a key that was answered before, or else another, to see whether the server is up."""
        triage = self._triage
        if not triage.answered:
            await self._probe_with(self._unanswered())
            return
        number = triage.number()
        error: PhygitalsError | None = None
        try:
            self._drop(await self._fetch_in_context(Lookup(self._run, self._outer), triage.answered[0]))
        except PhygitalsError as failure:
            error = failure
        triage.probed(error, number)

    async def _probe_with(self, suspect: Suspect[K] | None) -> None:
        outages = self._triage.outages
        if suspect is None:
            # All of them have been given up, each with its own error.
            outages.take_all()
            return
        await self._look_up(suspect)
        if outages.ongoing:
            outages.probed_in_vain()

    def _unanswered(self) -> Suspect[K] | None:
        """Return a new key, which says more than one that has failed, or such a one, if there is any."""
        if self.queues.keys:
            return Suspect(self.queues.keys.popleft())
        if not self.queues.is_async and (key := self._take_key()) is not END and key is not SKIPPED:
            return Suspect(key)
        if not self._triage.outages.suspects:
            return None
        self.queues.reserve()
        return self._triage.outages.suspects.popleft()
