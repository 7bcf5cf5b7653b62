"""Any lookup, for many keys: bounded, lazy, and with an outcome for every key."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import anyio
import anyio.lowlevel

from phygitals_async._bulk.keys import check_keys
from phygitals_async._bulk.outcomes import Batch, Failed, Found, Outcome
from phygitals_async._bulk.workers import Workers
from phygitals_async._checks import check_count, check_patience
from phygitals_async._loop.clocks import REAL_CLOCK, Clock
from phygitals_async.errors import InvalidArgumentError, PhygitalsError
from phygitals_async.observer import Hooks
from phygitals_async.progress import Progress

K = TypeVar("K")
V = TypeVar("V")

DEFAULT_LIMIT: Final = 64
DEFAULT_PATIENCE: Final = 300.0


def fan_out(
    fetch: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    limit: int = DEFAULT_LIMIT,
    distinct: bool = False,
    patience: float = DEFAULT_PATIENCE,
) -> FanOut[K, V]:
    """Look up every key with at most `limit` lookups in flight, giving outcomes as they complete.

    Use it as `async with fan_out(...) as outcomes: async for outcome in outcomes: ...`. Leaving the block, in whatever
    task, cancels what is still running and nothing else. Only a `PhygitalsError` becomes a `Failed`; any other
    exception of `fetch` ends the run and is raised. An `AuthenticationError` ends the run: lookups in flight finish, no
    further key is tried, and each remaining one comes out as `Failed` with `NotAttempted` (without end, if the keys
    have none). If reading `keys` raises, that error is raised after every outcome of the keys already read.

    An outage costs time, not keys: where lookups fail in a row by transport errors or 5xx, or the server asks for a
    pause longer than a call makes, the run waits, looks up one key now and then, and goes on when that is answered.
    What met the outage is looked up again, unless a call in it has moved money or goods. Beyond `patience` the
    remaining keys come out as `Failed` with `NotAttempted`.

    Each lookup runs in a fresh copy of the context in which the run was entered; the keys are read in one such copy.

    It is for lookups: outcomes that nobody has taken are gone when the block is left. Calls that move money or goods
    belong where every outcome is taken, as `fan_out_all` does, and are not to be cancelled.

    Args:
        fetch: Any lookup by key, such as `api.get_card`.
        keys: Any iterable or async iterable, read lazily; it may be endless.
        limit: The most lookups in flight; at most twice as many keys are read and not taken as outcomes.
        distinct: Look a repeated key up only once. Remembers every key, so memory grows with their number.
        patience: Seconds that one outage, or a limit, may last; 0 to wait for none.

    Raises:
        ConfigurationError: `limit` is not a whole number of at least 1, or `patience` no number of seconds.
        InvalidArgumentError: `keys` is a single string, or cannot be iterated.
    """
    return FanOut(fetch, keys, limit=limit, distinct=distinct, patience=patience)


async def fan_out_all(
    fetch: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    limit: int = DEFAULT_LIMIT,
    patience: float = DEFAULT_PATIENCE,
) -> Batch[K, V]:
    """Look up every key and return all outcomes in the order of the keys. A repeated key is looked up once.

    All keys are read before the first lookup, so an error in reading them costs nothing. See `fan_out`.

    Raises:
        ConfigurationError: `limit` is not a whole number of at least 1, or `patience` no number of seconds.
        InvalidArgumentError: `keys` is a single string, cannot be iterated, or holds an unhashable key.
    """
    # Checked before the keys are read, which may take its time.
    check_count("limit", limit)
    check_patience(patience)
    return await collect(keys, lambda distinct: fan_out(fetch, distinct, limit=limit, patience=patience))


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

    It belongs to no task: it can be entered, read and left from any, and `aclose` ends it too.

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
        patience: float,
        finish: Callable[[Any], V] | None = None,
        drop: Callable[[Any], None] | None = None,
        hooks: Hooks | None = None,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self._workers = Workers(
            fetch,
            keys,
            limit=check_count("limit", limit),
            distinct=distinct,
            patience=check_patience(patience),
            drop=drop or _ignore,
            clock=clock,
        )
        self.finish = finish
        self._hooks = hooks
        self._entered = False
        self._cut_short = False
        self.progress = Progress(self._workers.counts)

    @property
    def ended_by(self) -> PhygitalsError | None:
        """The failure by which no further key was attempted: a refused key, or the last one of a long outage."""
        return self._workers.ended_by

    async def __aenter__(self) -> Self:
        if self._entered:
            msg = "a bulk run can be entered only once"
            raise RuntimeError(msg)
        self._entered = True
        await anyio.lowlevel.checkpoint()
        self._workers.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._leave()
        untold = [bug for bug in self._bugs() if exc is None or not _tells_of(exc, bug)]
        if not untold:
            return
        if exc is None or isinstance(exc, anyio.get_cancelled_exc_class()):
            raise _together(untold)
        msg = "a bulk run was left by an exception, and a lookup had failed besides"
        raise BaseExceptionGroup(msg, [exc, *untold])

    async def aclose(self) -> None:
        """End the run, from any task: cancel its lookups, and wait until they have ended. Again, it does nothing."""
        self._entered = True
        if self._workers.is_entered:
            await self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[K, V]:
        workers, queues = self._workers, self._workers.queues
        while not queues.outcomes:
            if not workers.is_entered or not workers.tasks:
                await self._raise_failure()
                raise StopAsyncIteration
            await queues.wait_for_outcome()
        outcome = self._outcome(*queues.take_outcome())
        if self._hooks is not None:
            self._hooks.notify("progressed", self.progress)
        return outcome

    async def _leave(self) -> None:
        self._cut_short = self._cut_short or self._workers.is_unfinished
        await self._workers.stop()

    async def _raise_failure(self) -> None:
        """Raise what ended the run before its keys did, so that it is not taken for complete."""
        if not self._workers.is_entered:
            msg = "enter the bulk run first: async with ... as outcomes"
            raise RuntimeError(msg)
        if bugs := self._bugs():
            raise _together(bugs)
        if self._cut_short:
            msg = "the bulk run was left before all of its keys were looked up"
            raise RuntimeError(msg)
        self._workers.queues.raise_source_failure()

    def _bugs(self) -> list[BaseException]:
        """Return what ended the run before its keys did."""
        tasks = self._workers.tasks
        if tasks.crash is not None and not tasks.bugs:
            lost = RuntimeError("a lookup was cancelled from outside the bulk run, and its outcome is lost")
            lost.__cause__ = tasks.crash
            tasks.bugs.append(lost)
        return tasks.bugs

    def _outcome(self, key: K, brought: Any, error: PhygitalsError | None) -> Outcome[K, V]:
        counts = self._workers.counts
        if error is None:
            try:
                value = brought if self.finish is None else self.finish(brought)
            except PhygitalsError as failure:
                error = failure
            else:
                counts.found += 1
                return Found(key, value)
        counts.failed += 1
        # A kept outcome must not keep the frames that it came through.
        return Failed(key, error.with_traceback(None))


def _ignore(_: object) -> None:
    """Drop what nobody takes."""


def _tells_of(exc: BaseException, bug: BaseException) -> bool:
    """Whether an exception is the bug, or a group that holds it."""
    return exc is bug or (isinstance(exc, BaseExceptionGroup) and exc.subgroup(lambda one: one is bug) is not None)


def _together(bugs: list[BaseException]) -> BaseException:
    return bugs[0] if len(bugs) == 1 else BaseExceptionGroup("several lookups of a bulk run failed", bugs)
