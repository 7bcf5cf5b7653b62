"""Waiting for what the API finishes later: polling with growing, jittered intervals."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import anyio

from phygitals_async.deadline import within
from phygitals_async.errors import (
    DeadlineExceeded,
    PhygitalsError,
    PurchasePending,
    RateLimited,
    ServerError,
    TransportError,
)
from phygitals_async.models import Purchase, ShippingOrder

# The server holds a poll for about 6 s (API sheet, 2.6); one held much longer is stuck and asked again.
_LONGEST_POLL: Final = 15.0
_GROWTH: Final = 1.5
_LONGEST_PAUSE: Final = 5.0
# An error that a later poll may well not meet.
_PASSING: Final = (TransportError, ServerError, RateLimited)


async def wait_for_purchase(
    poll: Callable[[float], Awaitable[Purchase | None]], session_id: str, deadline: float, interval: float
) -> Purchase:
    """Call `poll`, which takes its own deadline in seconds, until it gives the purchase or raises to stay.

    Raises:
        PurchasePending: The deadline passed first.
    """
    last: PhygitalsError | None = None
    attempts = 0

    async def keep_polling(pause: float) -> Purchase:
        nonlocal last, attempts
        while True:
            try:
                attempts += 1
                purchase = await poll(_LONGEST_POLL)
                last = None
                if purchase is not None:
                    return purchase
            except _PASSING as error:
                last = error
            await anyio.sleep(_jittered(pause))
            pause = min(pause * _GROWTH, max(_LONGEST_PAUSE, interval))

    try:
        return await within(deadline, keep_polling, interval)
    except DeadlineExceeded:
        pass
    msg = f"still pending after {deadline:g} s: unknown, not failed; resume with session {session_id}"
    pending = PurchasePending(msg, session_id=session_id)
    pending.describe("wait_for_purchase", {"session_id": session_id}, attempts)
    raise pending from last


async def watch_order(poll: Callable[[], Awaitable[ShippingOrder]], interval: float) -> AsyncIterator[ShippingOrder]:
    """Yield the order now, and again whenever its status has changed, until it is terminal."""
    seen = None
    while True:
        order = await poll()
        if order.status != seen:
            seen = order.status
            yield order
        if order.status.is_terminal:
            return
        await anyio.sleep(_jittered(interval))


def _jittered(pause: float) -> float:
    """Spread polls that started together over a quarter of the pause either way."""
    return pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret depends on it.
