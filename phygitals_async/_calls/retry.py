"""After how long a failed attempt is made again, and how many repeats a client affords."""

from __future__ import annotations

import random

from attrs import define, field, frozen

from phygitals_async._calls.verdicts import Verdict
from phygitals_async._checks import check_seconds, shown
from phygitals_async.errors import ConfigurationError


def _check_retries(_instance: object, _attribute: object, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        msg = f"retries must be a whole number from 0 to 10, not {shown(value)}"
        raise ConfigurationError(msg)


@frozen(kw_only=True)
class RetryPolicy:
    """How calls that are safe to repeat are repeated: reads, and calls that provably never left.

    Attributes:
        retries: The most repeats of one call after failures, 0 to 10; with 0, nothing is ever repeated. Repeats after
            a 429 are not counted: the calls of an operation slow down together then, and the deadline bounds them.
        base: Seconds; the pause before the n-th repeat is random, up to `base * 2**n`.
        longest: Seconds; no pause is longer. A call whose server asks for more gives up rather than ask sooner.
    """

    retries: int = field(default=2, validator=_check_retries)
    base: float = field(default=0.2, validator=lambda _, a, value: check_seconds(a.name, value))
    longest: float = field(default=20.0, validator=lambda _, a, value: check_seconds(a.name, value))

    def pause(self, failures: int, verdict: Verdict, asked: float | None) -> float | None:
        """Return the seconds to wait before trying again, or None to give up.

        Args:
            failures: Failed attempts so far, this one included, 429s not counted.
            verdict: What the failure of this one means.
            asked: Seconds the server asked to wait, if it did.
        """
        if not verdict.may_repeat or failures > self.retries or not self.retries:
            return None
        if asked is not None and asked > self.longest:
            return None
        if verdict.is_limit:
            # The pause that all calls of the operation share does the waiting.
            return 0.0
        jittered = random.uniform(0, min(self.base * 2**failures, self.longest))  # noqa: S311 - no secret.
        return max(jittered, asked or 0.0)


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
