"""What only production does, to be switched on where a test needs it (API sheet, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
from attrs import Factory, define, field, frozen


def _rate(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        msg = f"{attribute.name} must be above 0 and finite, not {value}"
        raise ValueError(msg)


def _at_least_one(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value >= 1:
        msg = f"{attribute.name} must be at least 1, not {value}: a request takes a whole token"
        raise ValueError(msg)


def _stage(_instance: object, attribute: attrs.Attribute[timedelta | None], value: timedelta | None) -> None:
    if value is not None and value <= timedelta(0):
        msg = f"{attribute.name} must be longer than 0, not {value}; None keeps orders queued"
        raise ValueError(msg)


@frozen
class RateLimit:
    """A token bucket in front of every endpoint. The vendor documents none.

    Attributes:
        per_second: Requests per second that are answered: above 0, and finite.
        burst: The most that are answered at once, at least 1; by default as many as in one second.
        retry_after: Whether a 429 says how many seconds to wait.
    """

    per_second: float = field(validator=_rate)
    burst: float = field(
        default=Factory(lambda self: max(1.0, self.per_second), takes_self=True), validator=_at_least_one
    )
    retry_after: bool = True


@define
class SandboxOptions:
    """Behaviour beyond the documented sandbox. Set it at any time; counts go down as they are used up.

    Except for `server_errors`, a count is used up only by a request that would otherwise have succeeded. What becomes
    of a purchase or an order is fixed when it is made.

    Attributes:
        pending_polls: How often `buy/status` answers pending before a purchase started from now on is fulfilled.
        empty_polls: How often `buy/status` then answers with a result whose `nfts` are absent or empty, in turn, and
            empty last, before such a purchase is fulfilled (2.6).
        fail_purchases: Whether purchases started from now on fail in fulfilment.
        lock_sellbacks: How many sellbacks answer 429, as if another call held the item.
        busy_sellbacks: How many sellbacks answer 400, as if another session were active.
        fail_sellbacks: How many sellbacks fail.
        price_factor: What live prices are multiplied by, in inventories and at sellback.
        order_stage: How long an order made from now on stays in each status on its way to delivered; None keeps it
            queued.
        cancel_orders: Whether orders made from now on end as cancelled after their first stage, or at once where
            `order_stage` is None.
        fail_orders: Whether they end as failed then; `cancel_orders` goes before it.
        countries: The countries that are serviced; None accepts any two characters.
        reject_addresses: How many quotes are refused for their address.
        suggestion: The parts of the address that such a refusal suggests; None for no suggestion.
        fail_shipping: How many shipping requests answer the reserved failure.
        unshippable: Ids of items that cannot be shipped.
        server_errors: How many requests answer the documented 500 of their operation instead of acting; those of an
            operation without one do not count.
        rate_limit: A limit on requests.
    """

    pending_polls: int = 0
    empty_polls: int = 0
    fail_purchases: bool = False
    lock_sellbacks: int = 0
    busy_sellbacks: int = 0
    fail_sellbacks: int = 0
    price_factor: Decimal = Decimal(1)
    order_stage: timedelta | None = field(default=None, validator=_stage)
    cancel_orders: bool = False
    fail_orders: bool = False
    countries: frozenset[str] | None = None
    reject_addresses: int = 0
    suggestion: Mapping[str, Any] | None = None
    fail_shipping: int = 0
    unshippable: set[str] = field(factory=set)
    server_errors: int = 0
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
