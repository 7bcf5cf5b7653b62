"""Any lookup, for many keys: bounded, lazy, and with an outcome for every key.

A fixed number of workers pulls keys from one iterator, so neither keys nor results pile up. Workers are
started as keys turn up; outcomes wait in a buffer of at most `limit`, and a slow consumer stops the reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

import anyio
import anyio.lowlevel

from phygitals_async._bulk.keys import END, SKIPPED, End, Source, check_keys
from phygitals_async._bulk.outcomes import Batch, Failed, Found, Outcome
from phygitals_async._checks import check_count
from phygitals_async._loop.affinity import current_task
from phygitals_async._loop.wait_queue import Line
from phygitals_async.errors import AuthenticationError, InvalidArgumentError, NotAttempted, PhygitalsError
from phygitals_async.observer import Hooks
from phygitals_async.progress import Progress, current_progress

if TYPE_CHECKING:
    # Not needed at run time, and slow to load.
    from anyio.abc import TaskGroup

K = TypeVar("K")
V = TypeVar("V")

DEFAULT_LIMIT: Final = 64


def fan_out(
    fetch: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    limit: int = DEFAULT_LIMIT,
    distinct: bool = False,
) -> FanOut[K, V]:
    """Look up every key with at most `limit` lookups in flight, giving outcomes as they complete.

    Use it as `async with fan_out(...) as outcomes: async for outcome in outcomes: ...`. Leaving the block cancels what
    is still running. Only a `PhygitalsError` becomes a `Failed`; any other exception of `fetch` cancels the run and is
    raised. An `AuthenticationError` ends the run: lookups in flight finish, no further key is tried, and each remaining
    one comes out as `Failed` with `NotAttempted` (without end, if the keys have none). If reading `keys` raises, that
    error is raised after every outcome of the keys already read has been delivered.

    It is for lookups: outcomes that nobody has taken are gone when the block is left. Calls that move money or goods
    belong where every outcome is taken, as `fan_out_all` does, and are not to be cancelled.

    Args:
        fetch: Any lookup by key, such as `api.get_card`.
        keys: Any iterable or async iterable, read lazily; it may be endless.
        limit: The most lookups in flight, and the most finished outcomes kept waiting for the consumer.
        distinct: Look a repeated key up only once. Remembers every key, so memory grows with their number.

    Raises:
        ConfigurationError: `limit` is not a whole number of at least 1.
        InvalidArgumentError: `keys` is a single string, or cannot be iterated.
    """
    return FanOut(fetch, keys, limit=limit, distinct=distinct)


async def fan_out_all(
    fetch: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    limit: int = DEFAULT_LIMIT,
) -> Batch[K, V]:
    """Look up every key and return all outcomes in the order of the keys. A repeated key is looked up once.

    All keys are read before the first lookup, so an error in reading them costs nothing.

    Raises:
        ConfigurationError: `limit` is not a whole number of at least 1.
        InvalidArgumentError: `keys` is a single string, cannot be iterated, or holds an unhashable key.
    """
    # Checked before the keys are read, which may take its time.
    check_count("limit", limit)
    return await collect(keys, lambda distinct: fan_out(fetch, distinct, limit=limit))


async def collect(keys: Iterable[K] | AsyncIterable[K], start: Callable[[Iterable[K]], FanOut[K, V]]) -> Batch[K, V]:
    """Return all outcomes of the run that `start` makes of the distinct keys; see `fan_out_all`."""
    check_keys(keys)
    given = [key async for key in keys] if isinstance(keys, AsyncIterable) else list(keys)
    try:
        distinct = dict.fromkeys(given)
    except TypeError as error:
        msg = f"every key must be hashable: {error}"
        raise InvalidArgumentError(msg) from None
    async with start(distinct) as outcomes:
        by_key = {outcome.key: outcome async for outcome in outcomes}
    return Batch(tuple(by_key[key] for key in given))


class FanOut(Generic[K, V]):
    """A bulk run: an async context manager that gives an async iterator of outcomes. See `fan_out`.

    A lookup has two halves: `fetch` does the I/O in a worker, `finish` turns what it brought into the value
    when the consumer takes it. Bytes are cheap to keep waiting; thousands of decoded objects, which the
    garbage collector walks again and again, are not. What nobody takes is given to `drop`.

    Attributes:
        progress: Counts of the run so far.
    """

    def __init__(
        self,
        fetch: Callable[[K], Awaitable[Any]],
        keys: Iterable[K] | AsyncIterable[K],
        *,
        limit: int,
        distinct: bool,
        finish: Callable[[Any], V] | None = None,
        drop: Callable[[Any], None] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.progress = Progress(limit=check_count("limit", limit))
        self._hooks = hooks
        self._fetch = fetch
        self._finish = finish
        self._drop = drop
        self._source = Source(keys, distinct=distinct)
        self._limit = limit
        self._allowed = float(limit)
        self._throttled = 0
        self._group: TaskGroup | None = None
        self._tasks = 0
        self._workers = 0
        self._pending = 0
        self._read: deque[K] = deque()
        self._ready: deque[tuple[K, Any, PhygitalsError | None]] = deque()
        self._key_ready = Line()
        self._outcome_ready = Line()
        self._room = Line()
        self._ended_by: AuthenticationError | None = None
        self._stopped = False
        self._cut_short = False
        self._crash: BaseException | None = None
        self._bugs: list[BaseException] = []

    async def __aenter__(self) -> Self:
        if self._group is not None:
            msg = "a bulk run can be entered only once"
            raise RuntimeError(msg)
        await anyio.lowlevel.checkpoint()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        if self._source.is_async:
            self._start(self._feed)
        else:
            self._start_worker()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        group = cast("TaskGroup", self._group)
        self._cut_short = bool(self._tasks or self._ready)
        self._stopped = True
        task = current_task()
        cancelled_before = task.cancelling() if task else 0
        group.cancel_scope.cancel()
        try:
            await group.__aexit__(exc_type, exc, tb)
        except BaseExceptionGroup as errors:  # The group's way to raise whatever came; sorted out below.
            everything = errors
        else:
            if self._crash is not None:
                await anyio.lowlevel.checkpoint_if_cancelled()
                # No scope around asked for this cancellation: somebody cancelled what a lookup was waiting for.
                raise self._failure()
            return False
        finally:
            self._drop_the_rest()
        if task is not None and task.cancelling() > cancelled_before:
            # Somebody cancelled this task while it waited for the lookups to end; the group forgets that.
            task.uncancel()
            task.cancel()
        if not self._bugs and isinstance(self._crash, anyio.get_cancelled_exc_class()):
            # A scope around the run ended it; what a consumer made of that under a shield is not what happened.
            await anyio.lowlevel.checkpoint_if_cancelled()
        if exc is not None and not isinstance(exc, anyio.get_cancelled_exc_class()):
            # The caller's own exception leaves unchanged, unless lookups blew up besides.
            if all(bug is exc for bug in self._bugs):
                return False
        elif len(self._bugs) == 1:
            raise self._bugs[0]
        raise everything

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[K, V]:
        if self._group is None:
            msg = "enter the bulk run first: async with ... as outcomes"
            raise RuntimeError(msg)
        while not self._ready:
            if not self._tasks:
                await self._raise_failure()
                raise StopAsyncIteration
            await self._outcome_ready.wait()
        key, brought, error = self._ready.popleft()
        self._pending -= 1
        self._room.notify()
        outcome = self._outcome(key, brought, error)
        if self._hooks is not None:
            self._hooks.notify("progressed", self.progress)
        return outcome

    async def _raise_failure(self) -> None:
        """Raise what ended the run before its keys did, so that it is not taken for complete."""
        if self._crash is not None:
            # The run's block is being cancelled, and this consumer with it, unless it is shielded or outside the block.
            await anyio.lowlevel.checkpoint()
            raise self._failure()
        if self._cut_short:
            msg = "the bulk run was left before all of its keys were looked up"
            raise RuntimeError(msg)
        self._source.raise_failure()

    def _failure(self) -> BaseException:
        if self._bugs:
            return self._bugs[0]
        lost = RuntimeError("a lookup was cancelled from outside the bulk run, and its outcome is lost")
        lost.__cause__ = self._crash
        return lost

    def _outcome(self, key: K, brought: Any, error: PhygitalsError | None) -> Outcome[K, V]:
        if error is None:
            try:
                value = brought if self._finish is None else self._finish(brought)
            except PhygitalsError as failure:
                error = failure
            else:
                self.progress.found += 1
                return Found(key, value)
        self.progress.failed += 1
        # A kept outcome must not keep the frames that it came through.
        return Failed(key, error.with_traceback(None))

    def _drop_the_rest(self) -> None:
        while self._ready:
            _, brought, error = self._ready.popleft()
            if self._drop is not None and error is None:
                self._drop(brought)

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks += 1
        cast("TaskGroup", self._group).start_soon(self._guard, work)

    def _start_worker(self) -> None:
        self._workers += 1
        self._start(self._work)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a worker or the feeder, and note how it ends."""
        try:
            # One that starts while the run is being left reads nothing more.
            await anyio.lowlevel.checkpoint_if_cancelled()
            await work()
        except BaseException as crash:  # Cancellation too ends a run; noted, lest it pass for complete, and raised on.
            if not isinstance(crash, anyio.get_cancelled_exc_class()):
                self._bugs.append(crash)
            # Only the first ended the run: the others are the run being cancelled because of it, or being left.
            if not self._stopped:
                self._stopped, self._crash = True, crash
            raise
        finally:
            self._tasks -= 1
            self._outcome_ready.notify_all()
            self._key_ready.notify_all()
            self._room.notify()

    async def _feed(self) -> None:
        """Read an async iterable, in one task: it may open scopes that no other task may leave."""
        try:
            while True:
                while self._pending >= self._limit:
                    await self._room.wait()
                while self.progress.resumes:
                    await self._sit_out_pause()
                key = await self._source.wait()
                if key is END:
                    return
                self._pending += 1
                self._read.append(key)
                if not self._key_ready.notify() and self._workers < self.progress.limit:
                    self._start_worker()
        finally:
            await self._source.aclose()

    async def _work(self) -> None:
        current_progress.set(self.progress)
        next_key = self._next_read if self._source.is_async else self._next_taken
        try:
            while (key := await next_key()) is not END:
                if self._ended_by is None:
                    self._ready.append(await self._look_up(key))
                else:
                    self._ready.append((key, None, _not_attempted(self._ended_by)))
                self._outcome_ready.notify_all()
        finally:
            self._workers -= 1

    async def _next_taken(self) -> K | End:
        """Take a key from an iterable, and see that another worker takes the one after it."""
        while not self._stopped and self._workers <= self.progress.limit:
            if self._pending >= self._limit:
                await self._room.wait()
                continue
            if self.progress.resumes:
                await self._sit_out_pause()
                continue
            key = self._source.take()
            if key is END:
                break
            if key is SKIPPED:
                await anyio.lowlevel.checkpoint()
                continue
            self._pending += 1
            if self._workers < self.progress.limit and not self._source.ended:
                self._start_worker()
            return key
        return END

    async def _next_read(self) -> K | End:
        """Take a key that was fed."""
        while not self._stopped and self._workers <= self.progress.limit:
            if self._read:
                return self._read.popleft()
            if self._source.ended:
                break
            await self._key_ready.wait()
        return END

    async def _sit_out_pause(self) -> None:
        """Start no lookup while the server wants none: its deadline would run out meanwhile."""
        left = self.progress.resumes - anyio.current_time()
        if left > 0:
            await anyio.sleep(left)
        else:
            self.progress.resumes = 0.0

    async def _look_up(self, key: K) -> tuple[K, Any, PhygitalsError | None]:
        looked_up: tuple[K, Any, PhygitalsError | None]
        self.progress.in_flight += 1
        try:
            brought = await self._fetch(key)
        except PhygitalsError as failure:
            if isinstance(failure, AuthenticationError):
                self._ended_by = failure
            looked_up = key, None, failure
        else:
            looked_up = key, brought, None
        finally:
            self.progress.in_flight -= 1
        if self.progress.throttled:
            self._adapt(answered=looked_up[2] is None)
        return looked_up

    def _adapt(self, *, answered: bool) -> None:
        """Halve the lookups in flight when the server has throttled again, and add them back one by one."""
        if self.progress.throttled > self._throttled:
            self._throttled = self.progress.throttled
            self._allowed = max(1.0, self._allowed / 2)
        elif answered and self._allowed < self._limit:
            self._allowed = min(self._limit, self._allowed + 1 / self._allowed)
        self.progress.limit = int(self._allowed)


def _not_attempted(because: AuthenticationError) -> NotAttempted:
    error = NotAttempted("not tried: the API key was refused earlier in this run")
    error.__cause__ = because
    return error
