"""Host names looked up once for all who ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from math import inf
from time import monotonic

from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import Factory, define

_Key = tuple[str, int, socket.AddressFamily]


@define(eq=False)
class _Name:
    """What is known of a name.

    Attributes:
        addresses: What came of the last lookup.
        until: Until when, by the clock, they may be used.
        lock: Held by the call that looks it up.
        waiting: How many calls want to know, that one included.
        failures: How often that failed.
        failure: The last failure, for as long as anybody waits.
    """

    addresses: list[ResolveResult] = Factory(list)
    until: float = -inf
    lock: asyncio.Lock = Factory(asyncio.Lock)
    waiting: int = 0
    failures: int = 0
    failure: Exception | None = None


class CachingResolver(AbstractResolver):
    """Keeps what another resolver finds, and asks it once for a name, however many calls wait.

    It looks names up in the tasks of its callers: where the one who does is cancelled, the next takes over, and no task
    is left.

    Args:
        inner: The resolver that is asked. It is not closed here.
        seconds: How long to keep an answer; None means for ever. A failure is told to those who wait, and not kept.
        clock: Gives the time in seconds.
    """

    def __init__(
        self, inner: AbstractResolver, seconds: float | None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._inner = inner
        self._seconds = inf if seconds is None else seconds
        self._clock = clock
        self._names: dict[_Key, _Name] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`."""
        key = (host, port, family)
        name = self._names.get(key)
        if name is None:
            self._drop_what_is_over()
            name = self._names[key] = _Name()
        if self._clock() < name.until:
            return name.addresses
        name.waiting += 1
        try:
            return await self._wait(key, name)
        finally:
            name.waiting -= 1
            if not name.waiting:
                # It holds the frames of a request, and so its headers.
                name.failure = None

    async def _wait(self, key: _Key, name: _Name) -> list[ResolveResult]:
        failures = name.failures
        async with name.lock:
            if self._clock() < name.until:
                return name.addresses
            if name.failure is not None and name.failures != failures:
                raise name.failure.with_traceback(None)
            try:
                name.addresses = await self._inner.resolve(*key)
            except Exception as error:
                name.failures += 1
                name.failure = error
                raise
            name.until = self._clock() + self._seconds
            return name.addresses

    def forget(self, host: str | None = None) -> None:
        """Use no more what was found for `host`, or for any name."""
        for (known, _, _), name in self._names.items():
            if host in (None, known):
                name.until = -inf

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    def _drop_what_is_over(self) -> None:
        now = self._clock()
        self._names = {key: name for key, name in self._names.items() if now < name.until or name.waiting}
