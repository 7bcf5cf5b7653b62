"""The workers of a bulk run: they take keys, look them up, and set the outcomes out.

A fixed number of them pulls keys from one source, so neither keys nor outcomes pile up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from phygitals_async._api.operation import Effect
from phygitals_async._bulk.keys import END, SKIPPED, End, Skipped, Source
from phygitals_async._bulk.outages import Outages, Suspect
from phygitals_async._bulk.tasks import Tasks
from phygitals_async._calls.lookups import Counts, Lookup, Run, current_lookup
from phygitals_async._calls.verdicts import judge
from phygitals_async._loop.contexts import in_context
from phygitals_async._loop.loops import Loop, running_loop
from phygitals_async._loop.wait_queue import WaitQueue
from phygitals_async.errors import (
    AuthenticationError,
    ClientClosed,
    NotAttempted,
    OutcomeUnknown,
    PhygitalsError,
    Sent,
    StatusError,
)
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

    Attributes:
        counts: Of the run.
        ready: Outcomes to be taken: a key, and what its lookup brought or failed with.
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
    ) -> None:
        self.counts = Counts()
        self._run = Run(self.counts, patience)
        self.is_entered = False
        self.ready: deque[tuple[K, Any, PhygitalsError | None]] = deque()
        self._fetch = fetch
        self._drop = drop
        self._limit = limit
        # As many may wait to be taken as are in flight: so a worker need not wait for its outcome to be taken.
        self._most_pending = 2 * limit
        self._patience = patience
        self._source = Source(keys, distinct=distinct)
        self._outages: Outages[K] = Outages(patience)
        self._workers = 0
        self._number = 0
        self._pending = 0
        self._read: deque[K] = deque()
        self._again: deque[Suspect[K]] = deque()
        self._answered: list[K] = []
        self._ended_by: PhygitalsError | None = None
        self._probing = False
        self._outcome_ready = WaitQueue()
        self._key_ready = WaitQueue()
        self._room = WaitQueue()
        self._up_again = WaitQueue()

    @property
    def is_unfinished(self) -> bool:
        """Whether leaving now loses outcomes."""
        return bool(self.tasks or self.ready)

    def start(self) -> None:
        """Start in the context of the task that runs now: the source is read in it, lookups in fresh copies of it."""
        self.is_entered = True
        self._loop: Loop = running_loop()
        self.tasks = Tasks(self._loop, self._wake_all)
        self._source_context = copy_context()
        self._context = copy_context()
        for context in (self._source_context, self._context):
            self.tasks.mark(context)
        self._outer = current_lookup.get()
        if self._source.is_async:
            self.tasks.start(self._feed, self._source_context)
        else:
            self._start_worker()

    async def wait_for_outcome(self) -> None:
        """Wait until something is ready, or all tasks have ended."""
        await self._outcome_ready.wait()

    def take(self) -> tuple[K, Any, PhygitalsError | None]:
        """Take what is ready, and make room."""
        self._pending -= 1
        self._room.notify()
        return self.ready.popleft()

    async def stop(self) -> None:
        """End all tasks, drop what nobody has taken, and close the source.

        A lookup or the source that ends its own run is cancelled with the others, and whoever leaves the run waits.
        """
        try:
            await self.tasks.stop()
        finally:
            if not self.tasks:
                while self.ready:
                    _, brought, failure = self.ready.popleft()
                    if failure is None:
                        self._drop(brought)
                self._source_context.run(self._source.close)

    def _wake_all(self) -> None:
        self._outcome_ready.notify_all()
        self._key_ready.notify_all()

    def raise_source_failure(self) -> None:
        """Raise what reading the keys raised, once."""
        self._source.raise_failure()

    def _start_worker(self) -> None:
        self._workers += 1
        self.tasks.start(self._work, self._context.copy())

    async def _feed(self) -> None:
        """Read an async iterable, in one task: it may open scopes that no other task may leave."""
        try:
            while not self.tasks.stopping:
                if self._outages.ongoing:
                    await self._up_again.wait()
                elif self._pending >= self._most_pending or self._pending - len(self.ready) >= self._limit:
                    await self._room.wait()
                elif (key := await self._source.wait()) is END:
                    return
                else:
                    self._pending += 1
                    self._read.append(key)
                    if not self._key_ready.notify() and self._workers < self._limit:
                        self._start_worker()
        finally:
            await self._source.aclose()

    async def _work(self) -> None:
        try:
            while (suspect := await self._next()) is not END:
                if self._ended_by is None:
                    await self._look_up(suspect)
                else:
                    # One that was to be tried again has an error of its own.
                    self._put(suspect.key, None, suspect.error or _not_attempted(self._ended_by))
        finally:
            self._workers -= 1

    async def _next(self) -> Suspect[K] | End:
        """Return what to look up next, once the server is up and there is room for the outcome."""
        while not self.tasks.stopping:
            if self._outages.ongoing:
                await self._sit_out()
            elif self._read:
                return Suspect(self._read.popleft())
            elif self._needs_room:
                await self._wait_for_room()
            elif self._again:
                return self._take_again()
            elif self._source.is_async and not self._source.ended:
                await self._wait_for_key()
            elif (key := self._take_key()) is SKIPPED:
                await anyio.lowlevel.checkpoint()
            elif key is not END:
                return Suspect(key)
            elif not self._settle():
                return END
        return END

    @property
    def _needs_room(self) -> bool:
        # What was fed has its room already.
        return self._pending >= self._most_pending and (bool(self._again) or not self._source.is_async)

    async def _wait_for_room(self) -> None:
        await self._room.wait()
        if self._source.is_async and (not self._again or self._pending >= self._most_pending):
            # Another worker took what this one wanted the room for, or it was the feeder that was meant.
            self._room.notify()

    def _take_again(self) -> Suspect[K]:
        self._pending += 1
        suspect = self._again.popleft()
        if self._again and self._workers < self._limit:
            self._start_worker()
        return suspect

    async def _wait_for_key(self) -> None:
        if not self._outages.suspects or self.counts.in_flight:
            await self._key_ready.wait()
            return
        # The next key would show whose fault it was. But it may be long in coming.
        with anyio.move_on_after(_GRACE) as scope:
            await self._key_ready.wait()
        if scope.cancelled_caught:
            self._settle()

    def _take_key(self) -> K | End | Skipped:
        """Take a key from an iterable, and see that another worker takes the one after it."""
        key = self._source_context.run(self._source.take)
        if key is not END and key is not SKIPPED:
            self._pending += 1
            if self._workers < self._limit and not self._source.ended:
                self._start_worker()
        return key

    async def _look_up(self, suspect: Suspect[K]) -> None:
        lookup = Lookup(self._run, self._outer)
        self._number += 1
        number = self._number
        brought: Any = None
        error: PhygitalsError | None = None
        self.counts.in_flight += 1
        try:
            brought = await self._fetch_in_context(lookup, suspect.key)
        except PhygitalsError as failure:
            error = failure
        finally:
            self.counts.in_flight -= 1
        if isinstance(error, AuthenticationError):
            self._end_by(error)
        elif error is not None and self._is_set_aside(suspect, lookup, error):
            return
        self._put(suspect.key, brought, error)
        if _is_answer(error):
            if lookup.may_repeat:
                self._answered = [suspect.key]
            self._note_answer(number)
        elif isinstance(error, ClientClosed):
            self._note_answer(number)

    def _fetch_in_context(self, lookup: Lookup, key: K) -> Awaitable[Any]:
        context = self._context.copy()
        context.run(current_lookup.set, lookup)
        return in_context(context, self._fetch, key)

    def _is_set_aside(self, suspect: Suspect[K], lookup: Lookup, error: PhygitalsError) -> bool:
        """Keep what failed in a way that may pass until it shows whose fault it was, and say whether it is kept."""
        now = self._loop.now()
        verdict = judge(error, Effect.READS)
        hopeless = self._ended_by is not None or self._outages.is_hopeless(suspect, now)
        if hopeless or not verdict.may_pass or not lookup.may_repeat or not self._patience:
            return False
        self._pending -= 1
        self._room.notify()
        suspect.error, suspect.seen = error, self._number
        asked = error.retry_after if isinstance(error, StatusError) else None
        self._outages.failed(suspect, now, asked, is_limit=verdict.is_limit and asked is not None)
        return True

    def _note_answer(self, number: int) -> None:
        if not self._outages.suspects and not self._outages.ongoing:
            return
        again, failed = self._outages.answered(number)
        self._again.extend(again)
        self._give_up(failed)
        if not self._outages.ongoing:
            self._up_again.notify_all()

    def _give_up(self, suspects: Iterable[Suspect[K]]) -> None:
        for suspect in suspects:
            self._pending += 1
            self._put(suspect.key, None, suspect.error)

    def _put(self, key: K, brought: Any, error: PhygitalsError | None) -> None:
        self.ready.append((key, brought, error))
        self._outcome_ready.notify_all()
        if self._source.is_async:
            # The feeder may read the next key.
            self._room.notify()

    def _settle(self) -> bool:
        """Where no other lookup will show whose fault it was: find out, or take it for the keys'.

        Return whether there is more to do.
        """
        if not self._outages.suspects or self.counts.in_flight:
            return False
        worth_it = self._outages.may_be_hiccup or not self._source.ended
        if self._answered and worth_it and self._ended_by is None:
            self._outages.begin(self._loop.now())
            return True
        self._give_up(self._outages.take_all())
        return False

    async def _sit_out(self) -> None:
        """Wait until the server is up again: one worker looks whether it is, the others wait for that."""
        if self._probing:
            await self._up_again.wait()
            return
        self._probing = True
        try:
            while self._outages.ongoing and not self.tasks.stopping:
                pause = self._outages.pause(self._loop.now())
                if pause is None:
                    self._lose_patience()
                    continue
                if pause and not self.counts.waiting:
                    self.counts.waiting = True
                    logger.warning(
                        "a bulk run waits, for at most %g s: the server is down or asks for a pause", self._patience
                    )
                await anyio.sleep(pause)
                await self._probe()
        finally:
            self._probing = self.counts.waiting = False
            self._up_again.notify_all()

    async def _probe(self) -> None:
        """Look up a key that was answered before, or else another, to see whether the server is up."""
        if not self._answered:
            await self._probe_with(self._unanswered())
            return
        self._number += 1
        number = self._number
        error: PhygitalsError | None = None
        try:
            lookup = Lookup(self._run, self._outer)
            self._drop(await self._fetch_in_context(lookup, self._answered[0]))
        except PhygitalsError as failure:
            error = failure
        if isinstance(error, AuthenticationError):
            self._end_by(error)
        if _is_answer(error) or isinstance(error, ClientClosed):
            self._note_answer(number)
        else:
            self._outages.probed_in_vain()

    async def _probe_with(self, suspect: Suspect[K] | None) -> None:
        if suspect is None:
            # All of them have been given up, each with its own error.
            self._outages.take_all()
            return
        await self._look_up(suspect)
        if self._outages.ongoing:
            self._outages.probed_in_vain()

    def _unanswered(self) -> Suspect[K] | None:
        """Return a new key, which says more than one that has failed, or such a one, if there is any."""
        if self._read:
            return Suspect(self._read.popleft())
        if not self._source.is_async and (key := self._take_key()) is not END and key is not SKIPPED:
            return Suspect(key)
        if not self._outages.suspects:
            return None
        self._pending += 1
        return self._outages.suspects.popleft()

    def _lose_patience(self) -> None:
        suspects = self._outages.take_all()
        self._end_by(next((s.error for s in reversed(suspects) if s.error is not None), NotAttempted("")))
        self._give_up(suspects)

    def _end_by(self, error: PhygitalsError) -> None:
        """Attempt no further key."""
        self._ended_by = self._ended_by or error
        self._run.end()
        self._give_up(self._outages.take_all())
        self._up_again.notify_all()


def _is_answer(error: PhygitalsError | None) -> bool:
    """Whether a lookup that ended so shows that the server is up."""
    if error is None:
        return True
    if error.sent is not Sent.YES or isinstance(error, OutcomeUnknown):
        return False
    return not judge(error, Effect.READS).may_pass


def _not_attempted(because: PhygitalsError) -> NotAttempted:
    refused = isinstance(because, AuthenticationError)
    why = "the API key was refused earlier in this run" if refused else "this run's patience with the server has ended"
    error = NotAttempted(f"not tried: {why}")
    error.__cause__ = because
    return error
