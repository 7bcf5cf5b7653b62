"""Waiting for what must be waited for, whatever is done to the task that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def wait_out(wait: Callable[[], Awaitable[object]]) -> None:
    """Await `wait()` to its end; a cancellation meanwhile, by a scope or the event loop's own, is raised after it.

    Args:
        wait: Is begun anew where a cancellation ended it, so it waits for what has an owner of its own.
    """
    cancelled: BaseException | None = None
    while True:
        try:
            with anyio.CancelScope(shield=True):
                await wait()
        except anyio.get_cancelled_exc_class() as error:
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled
