"""Any lookup, for many keys: bounded, lazy, and with an outcome for every key.

A fixed number of workers pulls keys from one iterator, so neither keys nor results pile up. Workers are
started as keys turn up; outcomes wait in a buffer of at most `limit`, and a slow consumer stops the reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from phygitals_async.config import check_count
from phygitals_async.errors import AuthenticationError, InvalidArgumentError, NotAttempted, PhygitalsError
from phygitals_async.observer import Observer, notify
from phygitals_async.outcomes import Batch, Failed, Found, Outcome
from phygitals_async.progress import Progress, current_progress

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

    Use it as `async with fan_out(...) as outcomes: async for outcome in outcomes: ...`. Leaving the block
    cancels what is still running. Only a `PhygitalsError` becomes a `Failed`; any other exception of
    `fetch` cancels the run and is raised. An `AuthenticationError` ends the run: no further key is tried, and
    each remaining one comes out as `Failed` with `NotAttempted`. If reading `keys` raises, that error is
    raised after every outcome of the keys already read has been delivered.

    Args:
        fetch: Any lookup by key, such as `api.get_card`.
        keys: Any iterable or async iterable, read lazily; it may be endless.
        limit: The most lookups in flight, and the most finished outcomes kept waiting for the consumer.
        distinct: Look a repeated key up only once. Remembers every key, so memory grows with their number.

    Raises:
        ConfigurationError: `limit` is not a whole number of at least 1.
        InvalidArgumentError: `keys` is a single string, or cannot be iterated.
    """
    return FanOut(fetch, _as_it_is, keys, limit=limit, distinct=distinct)


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
    return await collect(keys, lambda distinct: fan_out(fetch, distinct, limit=limit))


async def collect(keys: Iterable[K] | AsyncIterable[K], start: Callable[[Iterable[K]], FanOut[K, V]]) -> Batch[K, V]:
    """Return all outcomes of the run that `start` makes of the distinct keys; see `fan_out_all`."""
    _check_keys(keys)
    given = [key async for key in keys] if isinstance(keys, AsyncIterable) else list(keys)
    try:
        distinct = dict.fromkeys(given)
    except TypeError as error:
        msg = f"every key must be hashable: {error}"
        raise InvalidArgumentError(msg) from None
    async with start(distinct) as outcomes:
        by_key = {outcome.key: outcome async for outcome in outcomes}
    return Batch(tuple(by_key[key] for key in given))


def _check_keys(keys: object) -> None:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable | AsyncIterable):
        msg = f"expected an iterable of keys, not a single {type(keys).__name__}"
        raise InvalidArgumentError(msg)


def _as_it_is(value: V) -> V:
    return value


class FanOut(Generic[K, V]):
    """A bulk run: an async context manager that gives an async iterator of outcomes. See `fan_out`.

    A lookup has two halves: `fetch` does the I/O in a worker, `finish` turns what it brought into the value
    when the consumer takes it. Bytes are cheap to keep waiting; thousands of decoded objects, which the
    garbage collector walks again and again, are not.

    Attributes:
        progress: Counts of the run so far.
    """

    def __init__(
        self,
        fetch: Callable[[K], Awaitable[Any]],
        finish: Callable[[Any], V],
        keys: Iterable[K] | AsyncIterable[K],
        *,
        limit: int,
        distinct: bool,
        observer: Observer | None = None,
    ) -> None:
        _check_keys(keys)
        self.progress = Progress(limit=check_count("limit", limit))
        self._observer = observer
        self._fetch = fetch
        self._finish = finish
        self._source = _Source(keys, distinct=distinct)
        self._limit = limit
        self._allowed = float(limit)
        self._throttled = 0
        self._group: TaskGroup | None = None
        self._workers = 0
        self._pending = 0
        self._ready: deque[tuple[K, Any, PhygitalsError | None]] = deque()
        self._outcome_ready = _Signal()
        self._room = _Signal()
        self._ended_by: AuthenticationError | None = None
        self._stopped = False
        self._crash: BaseException | None = None
        self._bugs: list[BaseException] = []

    async def __aenter__(self) -> Self:
        if self._group is not None:
            msg = "a bulk run can be entered only once"
            raise RuntimeError(msg)
        await anyio.lowlevel.checkpoint()
        self._left = anyio.Event()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._start_worker()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        group = cast(TaskGroup, self._group)
        self._stopped = True
        group.cancel_scope.cancel()
        try:
            swallowed = await group.__aexit__(exc_type, exc, tb)
        except BaseExceptionGroup as errors:
            everything = errors
        else:
            if self._crash is not None:
                await anyio.lowlevel.checkpoint_if_cancelled()
                # No scope around asked for this cancellation: somebody cancelled what a lookup was waiting for.
                raise self._failure()
            return swallowed
        finally:
            self._left.set()
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
            if not self._workers:
                await self._raise_failure()
                raise StopAsyncIteration
            await self._outcome_ready.wait()
        key, brought, error = self._ready.popleft()
        self._pending -= 1
        self._room.notify()
        outcome = self._outcome(key, brought, error)
        if self._observer is not None:
            notify(self._observer.progressed, self.progress)
        return outcome

    async def _raise_failure(self) -> None:
        """Raise what ended the run before its keys did, so that it is not taken for complete."""
        if self._crash is not None:
            # The run's block is being cancelled, and this consumer with it; one outside the block outlives that.
            await self._left.wait()
            raise self._failure()
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
                value = self._finish(brought)
            except PhygitalsError as failure:
                error = failure
            else:
                self.progress.found += 1
                return Found(key, value)
        self.progress.failed += 1
        return Failed(key, error)

    def _start_worker(self) -> None:
        self._workers += 1
        cast(TaskGroup, self._group).start_soon(self._work)

    async def _work(self) -> None:
        current_progress.set(self.progress)
        try:
            # A worker that starts while the run is being left reads nothing more.
            await anyio.lowlevel.checkpoint_if_cancelled()
            while not self._stopped and self._workers <= self.progress.limit:
                if self._pending >= self._limit:
                    await self._room.wait()
                    continue
                # The key about to be read has its place among those in flight and those that wait to be taken.
                self._pending += 1
                key = await self._source.next()
                if key is _END:
                    self._pending -= 1
                    return
                if self._workers < self.progress.limit and not self._source.ended:
                    self._start_worker()
                await self._look_up(cast(K, key))
                self._outcome_ready.notify()
                self._adapt()
        except BaseException as crash:  # Noted, so that the run is not taken for complete, and raised on.
            if not isinstance(crash, anyio.get_cancelled_exc_class()):
                self._bugs.append(crash)
            # Only the first ended the run: the others are the run being cancelled because of it, or being left.
            if not self._stopped:
                self._stopped, self._crash = True, crash
            raise
        finally:
            self._workers -= 1
            self._outcome_ready.notify()
            self._room.notify()

    def _adapt(self) -> None:
        """Halve the lookups in flight when the server has throttled, and add them back one by one."""
        if self.progress.throttled > self._throttled:
            self._throttled = self.progress.throttled
            self._allowed = max(1.0, self._allowed / 2)
        elif self._allowed < self._limit:
            self._allowed = min(self._limit, self._allowed + 1 / self._allowed)
        self.progress.limit = int(self._allowed)

    async def _look_up(self, key: K) -> None:
        if self._ended_by is not None:
            error: PhygitalsError = NotAttempted("not tried: the API key was refused earlier in this run")
            error.__cause__ = self._ended_by
            self._ready.append((key, None, error))
            return
        self.progress.in_flight += 1
        try:
            self._ready.append((key, await self._fetch(key), None))
        except PhygitalsError as failure:
            if isinstance(failure, AuthenticationError):
                self._ended_by = failure
            self._ready.append((key, None, failure))
        finally:
            self.progress.in_flight -= 1


_END: Final = object()


class _Source(Generic[K]):
    """The keys, one at a time, for any number of readers."""

    def __init__(self, keys: Iterable[K] | AsyncIterable[K], *, distinct: bool) -> None:
        self.ended = False
        self._failure: Exception | None = None
        self._seen: set[K] | None = set() if distinct else None
        self._keys: Iterator[K] | None = None
        self._async_keys: AsyncIterator[K] | None = None
        if isinstance(keys, AsyncIterable):
            self._async_keys = aiter(keys)
            self._lock = anyio.Lock()
        else:
            self._keys = iter(keys)

    async def next(self) -> K | object:
        """Return the next key, or `_END` once they have ended or reading them has failed."""
        try:
            while not self.ended:
                key = await self._read()
                if key is _END:
                    self.ended = True
                elif self._seen is None:
                    return key
                elif key not in self._seen:
                    self._seen.add(cast(K, key))
                    return key
        except Exception as failure:  # noqa: BLE001 - the caller's iterator may raise anything; raise_failure() hands it on.
            self.ended = True
            self._failure = failure
        return _END

    def raise_failure(self) -> None:
        """Raise what reading the keys raised, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _read(self) -> K | object:
        if self._keys is not None:
            return next(self._keys, _END)
        async with self._lock:
            # Another reader may have met the end while this one waited.
            return _END if self.ended else await anext(cast(AsyncIterator[Any], self._async_keys), _END)


class _Signal:
    """Wakes every waiter at each notification, and costs nothing while nobody waits."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
