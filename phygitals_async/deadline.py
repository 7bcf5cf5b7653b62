"""One bound in seconds on everything a call does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio
import anyio.lowlevel

from phygitals_async.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")


async def within(seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a call, cancelling it after `seconds`.

    Raises:
        DeadlineExceeded: The time was up first.
    """
    # Imported late: under trio it is never needed, and it is a third of this package's import time.
    import asyncio

    if _runs_in_asyncio(asyncio.current_task):
        # Half the cost of an anyio scope, and a bulk run pays it for every key.
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await call(*args, **kwargs)
        except TimeoutError:
            if not scope.expired():
                raise
        except asyncio.CancelledError:
            if scope.expired():
                # An anyio scope around the call ended in the same turn, and asyncio.timeout overwrote its
                # message: let anyio cancel anew, or it would take the cancellation for somebody else's.
                await anyio.lowlevel.checkpoint_if_cancelled()
            raise
    else:
        with anyio.move_on_after(seconds):
            return await call(*args, **kwargs)
    msg = f"no answer within {seconds:g} s"
    raise DeadlineExceeded(msg)


def _runs_in_asyncio(current_task: Callable[[], object]) -> bool:
    try:
        return current_task() is not None
    except RuntimeError:
        return False
