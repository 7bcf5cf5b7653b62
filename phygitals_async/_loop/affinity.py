"""Which event loop something belongs to."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.lowlevel

from phygitals_async.errors import ConfigurationError


class Affinity:
    """Ties something to the event loop that first uses it.

    Args:
        owner: What is tied, for the error message.

    Attributes:
        now: Reads the loop's clock, in seconds; to be had after `must_start_afresh`.
    """

    now: Callable[[], float]

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._runtime: Any = None
        self._process = 0

    def must_start_afresh(self) -> bool:
        """Whether this is the first use, or the first after the former loop ended or the process was forked.

        A loop that stopped and was never closed has ended too, with a `RuntimeWarning`: it may be run again.

        Raises:
            ConfigurationError: The former loop still runs: sharing across loops or threads would corrupt both.
        """
        try:
            runtime: Any = asyncio.get_running_loop()
        except RuntimeError:
            runtime = anyio.lowlevel.current_token().native_token
        if runtime is self._runtime and os.getpid() == self._process:
            return False
        former = self._runtime if os.getpid() == self._process else None
        if former is not None and _still_runs(former):
            msg = f"{self._owner} is in use by another event loop; make one for each loop"
            raise ConfigurationError(msg)
        self._runtime, self._process = runtime, os.getpid()
        # A loop of asyncio is asked itself: anyio finds out each time which loop it is. But where it only hosts
        # trio, it is trio's clock that everything here sleeps by.
        self.now = anyio.current_time if current_task() is None else runtime.time
        if isinstance(former, asyncio.AbstractEventLoop) and not former.is_closed():
            msg = f"{self._owner} was left by an event loop that stopped and was never closed; it starts afresh here"
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
        return True


class Event(Protocol):
    """What the events of asyncio and of anyio have in common."""

    def set(self) -> None:
        """Wake who waits."""
        ...

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    async def wait(self) -> Any:
        """Wait until it is set."""
        ...


def event_class() -> Callable[[], Event]:
    """Return asyncio's own class of events in asyncio, at half the cost of anyio's, and anyio's elsewhere."""
    return anyio.Event if current_task() is None else asyncio.Event


def current_task() -> asyncio.Task[Any] | None:
    """Return the current task of asyncio, or None under trio, also where trio is the guest of a loop of asyncio."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _still_runs(runtime: Any) -> bool:
    if isinstance(runtime, asyncio.AbstractEventLoop):
        return runtime.is_running()
    try:
        runtime.run_sync_soon(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """Do nothing: trio refuses to schedule even that once a run is over."""
