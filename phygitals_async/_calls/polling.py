"""Waiting for what the API finishes later: polling with growing, jittered intervals."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from phygitals_async._api.operation import Effect
from phygitals_async._calls.verdicts import judge
from phygitals_async._loop.clocks import Clock
from phygitals_async.errors import (
    ClientClosed,
    DeadlineExceeded,
    PhygitalsError,
    PurchasePending,
    Sent,
    StatusError,
)
from phygitals_async.models import Purchase, ShippingOrder

# The server holds a poll for about 6 s (API sheet, 2.6); one held much longer is stuck and asked again.
_LONGEST_POLL: Final = 15.0
_GROWTH: Final = 1.5
_LONGEST_PAUSE: Final = 5.0
# An order is watched for days, and without a deadline if none is given: a server that asks for more ends it.
_LONGEST_ASKED: Final = 3600.0


async def wait_for_purchase(
    poll: Callable[[float], Awaitable[Purchase | None]],
    session_id: str,
    deadline: float,
    interval: float,
    within: Callable[[float, Callable[[], Awaitable[Purchase]]], Awaitable[Purchase]],
    clock: Clock,
    *,
    started: bool = False,
) -> Purchase:
    """Call `poll`, which takes its own deadline in seconds, until it gives the purchase or raises a lasting error.

    Raises:
        PurchasePending: The deadline passed first; or nothing more could be asked, the client being closed, for one,
            if the purchase was `started` by the same call: the error would say that nothing was sent.
    """
    last: PhygitalsError | None = None
    polls = 0

    async def keep_polling() -> Purchase:
        nonlocal last, polls
        pause = interval
        while True:
            try:
                polls += 1
                purchase = await poll(_LONGEST_POLL)
                last = None
                if purchase is not None:
                    return purchase
            except PhygitalsError as error:
                if not judge(error, Effect.READS).may_pass:
                    raise
                last = error
            await clock.sleep(_pause(pause, last))
            pause = min(pause * _GROWTH, max(_LONGEST_PAUSE, interval))

    try:
        return await within(deadline, keep_polling)
    except DeadlineExceeded:
        end = f"after {deadline:g} s"
    except PhygitalsError as error:
        if not started or error.sent is not Sent.NEVER:
            raise
        last = error
        end = "when the client was closed" if isinstance(error, ClientClosed) else "when nothing more could be asked"
    msg = f"still pending {end}: unknown, not failed; resume with session {session_id}"
    pending = PurchasePending(msg, session_id=session_id)
    pending.describe("wait_for_purchase", {"session_id": session_id}, polls)
    raise pending from last


async def watch_order(
    poll: Callable[[float | None], Awaitable[ShippingOrder]],
    order_id: str,
    interval: float,
    deadline: float | None,
    clock: Clock,
) -> AsyncIterator[ShippingOrder]:
    """Yield the order now, and again whenever its status has changed, until it is terminal.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    ends = None if deadline is None else clock.now() + deadline
    seen = None
    last: PhygitalsError | None = None
    polls = 0
    while (left := None if ends is None else ends - clock.now()) is None or left > 0:
        polls += 1
        try:
            # A poll has the client's deadline, or what is left of this one.
            order = await poll(left)
        except PhygitalsError as error:
            if not judge(error, Effect.READS).may_pass or _asked(error) > _LONGEST_ASKED:
                raise
            last = error
        else:
            last = None
            if order.status != seen:
                seen = order.status
                yield order
            if order.status.is_terminal:
                return
        pause = _pause(interval, last)
        await clock.sleep(pause if ends is None else max(0.0, min(pause, ends - clock.now())))
    msg = f"the order came to no end within {deadline:g} s; its status was last {seen}"
    exceeded = DeadlineExceeded(msg)
    exceeded.describe("watch_order", {"order_id": order_id}, polls)
    raise exceeded from last


def _pause(interval: float, last: PhygitalsError | None) -> float:
    """Spread polls that started together over a quarter of the interval either way, and never ask before told to."""
    jittered = interval * random.uniform(0.75, 1.25)  # noqa: S311 - no secret depends on it.
    return max(jittered, _asked(last))


def _asked(error: PhygitalsError | None) -> float:
    """Return the seconds that the server asked to wait."""
    return (error.retry_after or 0.0) if isinstance(error, StatusError) else 0.0
