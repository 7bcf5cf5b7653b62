"""When a failed attempt may be made again, and after how long."""

from __future__ import annotations

import random
from typing import Final

from attrs import define, field, frozen

from phygitals_async._checks import check_seconds
from phygitals_async.errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    Sent,
    StatusError,
)

# 501 and 505 stay what they are, however often they are asked.
_PASSING_STATUSES: Final = frozenset({408, 425, 500, 502, 503, 504, *range(520, 531)})


def _check_retries(_instance: object, _attribute: object, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        msg = "retries must be a whole number from 0 to 10"
        raise ConfigurationError(msg)


@frozen(kw_only=True)
class RetryPolicy:
    """How calls that are safe to repeat are repeated: reads, and calls that provably never left.

    Attributes:
        retries: The most repeats of one call after failures, 0 to 10; with 0, nothing is ever repeated. Repeats after
            a 429 are not counted: all calls of a client pause together then, and the deadline bounds them.
        base: Seconds; the pause before the n-th repeat is random, up to `base * 2**n`.
        longest: Seconds; no pause is longer. A call whose server asks for more gives up rather than ask sooner.
    """

    retries: int = field(default=2, validator=_check_retries)
    base: float = field(default=0.2, validator=lambda _, a, value: check_seconds(a.name, value))
    longest: float = field(default=20.0, validator=lambda _, a, value: check_seconds(a.name, value))

    def pause(self, failures: int, error: PhygitalsError, *, is_read: bool) -> float | None:
        """Return the seconds to wait before trying again, or None to give up.

        Args:
            failures: Failed attempts so far, this one included, 429s not counted.
            error: How this one failed.
            is_read: Whether the call may be repeated even if the server acted on it.
        """
        asked = error.retry_after if isinstance(error, StatusError) else None
        if asked is not None and asked > self.longest:
            return None
        if isinstance(error, RateLimited):
            # The pause that all calls share does the waiting.
            return 0.0 if is_read and self.retries else None
        if failures > self.retries or not self._may_repeat(error, is_read=is_read):
            return None
        jittered = random.uniform(0, min(self.base * 2**failures, self.longest))  # noqa: S311 - no secret.
        return max(jittered, asked or 0.0)

    def _may_repeat(self, error: PhygitalsError, *, is_read: bool) -> bool:
        if isinstance(error, ConnectError) and error.sent is Sent.NEVER:
            return True
        return is_read and is_passing(error)


def is_passing(error: PhygitalsError) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, StatusError):
        return isinstance(error, RateLimited) or error.status in _PASSING_STATUSES
    return isinstance(error, ConnectError | ConnectionLost | ProtocolError | DeadlineExceeded)


@define(eq=False)
class RetryBudget:
    """A token bucket over all calls of a client, so that an outage is not multiplied.

    Each repeat takes tokens and each success gives one back: while most calls fail, few are repeated.
    """

    tokens: float = 500.0
    _CAPACITY = 500.0
    _COST = 10.0

    def take(self) -> bool:
        """Whether there is enough left for one more repeat."""
        if self.tokens < self._COST:
            return False
        self.tokens -= self._COST
        return True

    def give_back(self) -> None:
        """Count a success."""
        if self.tokens < self._CAPACITY:
            self.tokens += 1.0
