"""Which event loop something belongs to."""

from __future__ import annotations

import os
from typing import Any

import anyio.lowlevel

from phygitals_async.errors import ConfigurationError


class Affinity:
    """Ties something to the event loop that first uses it.

    Args:
        owner: What is tied, for the error message.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._runtime: Any = None
        self._process = 0

    @property
    def is_inherited(self) -> bool:
        """Whether it was used last in the process that this one was forked from."""
        return self._process not in (0, os.getpid())

    @property
    def is_over(self) -> bool:
        """Whether the event loop that used it last has ended."""
        return self._runtime is not None and _is_over(self._runtime)

    def must_start_afresh(self) -> bool:
        """Whether this is the first use, or the first after the former loop ended or the process was forked.

        Raises:
            ConfigurationError: The former loop is still there: sharing across loops or threads would corrupt both.
        """
        runtime = _current()
        if runtime is self._runtime and os.getpid() == self._process:
            return False
        if self._runtime is not None and os.getpid() == self._process and not _is_over(self._runtime):
            msg = f"{self._owner} is in use by another event loop; make one for each loop"
            raise ConfigurationError(msg)
        self._runtime, self._process = runtime, os.getpid()
        return True


def _current() -> Any:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return anyio.lowlevel.current_token().native_token


def _is_over(runtime: Any) -> bool:
    if hasattr(runtime, "is_closed"):
        return bool(runtime.is_closed())
    try:
        runtime.run_sync_soon(_nothing)
    except RuntimeError:
        return True
    return False


def _nothing() -> None:
    """Do nothing: trio refuses to schedule even that once a run is over."""
