"""The keys of a bulk run, read one at a time by any number of workers."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Iterable
from inspect import isasyncgen, isgenerator
from typing import Any, Final, Generic, TypeVar, cast

import anyio.lowlevel

from phygitals_async._checks import are_many
from phygitals_async.errors import InvalidArgumentError

K = TypeVar("K")


class End(enum.Enum):
    """What comes after the last key."""

    END = enum.auto()


class Skipped(enum.Enum):
    """What comes in the place of a key after very many repeated ones: let others run, and ask again."""

    SKIPPED = enum.auto()


END: Final = End.END
SKIPPED: Final = Skipped.SKIPPED
_MOST_SKIPPED: Final = 500


class Source(Generic[K]):
    """Reads an iterable or async iterable, lazily.

    Args:
        keys: What to read.
        distinct: Whether to leave a repeated key out.

    Attributes:
        ended: Whether the keys have ended, or reading them has failed.
        is_async: Whether keys are to be had from `wait`, and not from `take`.

    Raises:
        InvalidArgumentError: `keys` is a single string, or cannot be iterated.
    """

    def __init__(self, keys: Iterable[K] | AsyncIterable[K], *, distinct: bool) -> None:
        check_keys(keys)
        self.ended = False
        self.is_async = isinstance(keys, AsyncIterable)
        self._keys: Any = aiter(keys) if isinstance(keys, AsyncIterable) else iter(keys)
        self._failure: Exception | None = None
        self._seen: set[K] | None = set() if distinct else None

    def take(self) -> K | End | Skipped:
        """Return the next key of a plain iterable, or `END`, or `SKIPPED` to let others run before the next try."""
        if self.ended:
            return END
        try:
            for _ in range(_MOST_SKIPPED):
                key: K | End = next(self._keys, END)
                if key is END:
                    break
                if self._is_wanted(key):
                    return key
            else:
                return SKIPPED
        except Exception as failure:  # noqa: BLE001 - the caller's iterator may raise anything; raise_failure() hands it on.
            self._failure = failure
        self.ended = True
        return END

    async def wait(self) -> K | End:
        """Return the next key of an async iterable, or `END`."""
        skipped = 0
        try:
            async for key in self._keys:
                if self._is_wanted(key):
                    return cast(K, key)
                skipped += 1
                if skipped % _MOST_SKIPPED == 0:
                    # The iterable may have them all at hand, and never let others run.
                    await anyio.lowlevel.checkpoint()
        except Exception as failure:  # noqa: BLE001 - the caller's, as in `take`.
            self._failure = failure
        self.ended = True
        return END

    def raise_failure(self) -> None:
        """Raise what reading the keys raised, once."""
        failure, self._failure = self._failure, None
        if isinstance(failure, StopIteration | StopAsyncIteration):
            # Out of an async iterator, it would look like the end.
            msg = "reading the keys failed"
            raise RuntimeError(msg) from failure
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close a plain generator."""
        if isgenerator(self._keys):
            self._keys.close()

    async def aclose(self) -> None:
        """Close an async generator, in the task that read it: it may hold scopes that no other task may leave."""
        if isasyncgen(self._keys):
            await self._keys.aclose()

    def _is_wanted(self, key: K) -> bool:
        if self._seen is None:
            return True
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def check_keys(keys: object) -> None:
    """Refuse what cannot be the keys of a bulk run.

    Raises:
        InvalidArgumentError: `keys` is a single string, or cannot be iterated.
    """
    if not are_many(keys):
        msg = f"expected an iterable of keys, not a single {type(keys).__name__}"
        raise InvalidArgumentError(msg)
