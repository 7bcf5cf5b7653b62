"""What only production does, to be switched on where a test needs it (API sheet, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from attrs import Factory, define, field, frozen


@frozen
class RateLimit:
    """A token bucket in front of every endpoint. The vendor documents none.

    Attributes:
        per_second: Requests per second that are answered.
        burst: The most that are answered at once; by default as many as in one second, and at least one.
        retry_after: Whether a 429 says how many seconds to wait.
    """

    per_second: float
    burst: float = field(default=Factory(lambda self: max(1.0, self.per_second), takes_self=True))
    retry_after: bool = True


@define
class SandboxOptions:
    """Behaviour beyond the documented sandbox. Set it at any time; counts go down as they are used up.

    Attributes:
        pending_polls: How often `buy/status` answers pending before a purchase started from now on is fulfilled.
        fail_purchases: Whether purchases started from now on fail in fulfilment.
        lock_sellbacks: How many sellbacks answer 429, as if another call held the item.
        busy_sellbacks: How many sellbacks answer 400, as if another session were active.
        fail_sellbacks: How many sellbacks fail.
        price_factor: What live prices are multiplied by, in inventories and at sellback.
        order_stage: How long an order stays in each status on its way to delivered; None keeps it queued.
        cancel_orders: Whether orders end as cancelled after their first stage.
        countries: The countries that are serviced; None accepts any two characters.
        reject_addresses: How many quotes are refused for their address.
        suggestion: The parts of the address that such a refusal suggests; None for no suggestion.
        fail_shipping: How many shipping requests answer the reserved failure.
        unshippable: Ids of items that cannot be shipped.
        rate_limit: A limit on requests.
    """

    pending_polls: int = 0
    fail_purchases: bool = False
    lock_sellbacks: int = 0
    busy_sellbacks: int = 0
    fail_sellbacks: int = 0
    price_factor: Decimal = Decimal(1)
    order_stage: timedelta | None = None
    cancel_orders: bool = False
    countries: frozenset[str] | None = None
    reject_addresses: int = 0
    suggestion: Mapping[str, Any] | None = None
    fail_shipping: int = 0
    unshippable: set[str] = field(factory=set)
    rate_limit: RateLimit | None = None

    def use_up(self, name: str) -> bool:
        """Whether the count `name` was above zero; it is one lower afterwards."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0


class TokenBucket:
    """Counts requests against a `RateLimit`."""

    def __init__(self, limit: RateLimit, now: datetime) -> None:
        self.limit = limit
        self._tokens = float(limit.burst)
        self._at = now

    def take(self, now: datetime) -> float | None:
        """Take a token and return None, or return the seconds until there is one."""
        passed = max(0.0, (now - self._at).total_seconds())
        self._at = now
        self._tokens = min(self.limit.burst, self._tokens + passed * self.limit.per_second)
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        return (1 - self._tokens) / self.limit.per_second
