"""What only production does, to be switched on where a test needs it (API sheet, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

import attrs
from attrs import Factory, define, field, frozen

from phygitals_async._checks import shown
from phygitals_async.errors import ConfigurationError

_Check: TypeAlias = Callable[[object, "attrs.Attribute[Any]", Any], None]


def _must_be(what: str, is_good: Callable[[Any], bool]) -> _Check:
    """Return what refuses a value of an option at once: the sandbox would fail at some later request."""

    def check(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not is_good(value):
            given = value if isinstance(value, timedelta) else shown(value)
            msg = f"{attribute.name} must be {what}, not {given}"
            raise ConfigurationError(msg)

    return check


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_ids(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)


_COUNT: Final = _must_be(
    "a whole number of at least 0", lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0
)
_FLAG: Final = _must_be("a bool", lambda value: isinstance(value, bool))


@frozen
class RateLimit:
    """A token bucket in front of every endpoint. The vendor documents none.

    Attributes:
        per_second: Requests per second that are answered: above 0, and finite.
        burst: The most that are answered at once, at least 1; by default as many as in one second.
        retry_after: Whether a 429 says how many seconds to wait.

    Raises:
        ConfigurationError: A value is not one of these.
    """

    per_second: float = field(
        validator=_must_be("above 0 and finite", lambda value: _is_number(value) and 0 < value < math.inf)
    )
    burst: float = field(
        # It is made before anything is checked.
        default=Factory(
            lambda self: max(1.0, self.per_second) if _is_number(self.per_second) else 1.0, takes_self=True
        ),
        validator=_must_be("at least 1", lambda value: _is_number(value) and value >= 1),
    )
    retry_after: bool = field(default=True, validator=_FLAG)


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
        strict: Whether calls below the root path, where the vendor's production is, answer 401, as production answers a
            key of the sandbox: a client that loses the `/_` of the base URL is found out.

    Raises:
        ConfigurationError: A value is of another kind, or out of its range.
    """

    pending_polls: int = field(default=0, validator=_COUNT)
    empty_polls: int = field(default=0, validator=_COUNT)
    fail_purchases: bool = field(default=False, validator=_FLAG)
    lock_sellbacks: int = field(default=0, validator=_COUNT)
    busy_sellbacks: int = field(default=0, validator=_COUNT)
    fail_sellbacks: int = field(default=0, validator=_COUNT)
    price_factor: Decimal = field(
        default=Decimal(1),
        validator=_must_be("a Decimal, such as Decimal('0.9')", lambda value: isinstance(value, Decimal)),
    )
    order_stage: timedelta | None = field(
        default=None,
        validator=_must_be(
            "a timedelta longer than 0, or None to keep orders queued",
            lambda value: value is None or (isinstance(value, timedelta) and value > timedelta(0)),
        ),
    )
    cancel_orders: bool = field(default=False, validator=_FLAG)
    fail_orders: bool = field(default=False, validator=_FLAG)
    countries: frozenset[str] | None = field(
        default=None,
        validator=_must_be("a set of countries, or None for any", lambda value: value is None or _is_ids(value)),
    )
    reject_addresses: int = field(default=0, validator=_COUNT)
    suggestion: Mapping[str, Any] | None = field(
        default=None,
        validator=_must_be(
            "a dict of the parts of an address, or None", lambda value: value is None or isinstance(value, Mapping)
        ),
    )
    fail_shipping: int = field(default=0, validator=_COUNT)
    unshippable: set[str] = field(factory=set, validator=_must_be("a set of item ids", _is_ids))
    server_errors: int = field(default=0, validator=_COUNT)
    rate_limit: RateLimit | None = field(
        default=None,
        validator=_must_be(
            "a RateLimit, such as RateLimit(per_second=5)",
            lambda value: value is None or isinstance(value, RateLimit),
        ),
    )

    strict: bool = field(default=False, validator=_FLAG)

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
