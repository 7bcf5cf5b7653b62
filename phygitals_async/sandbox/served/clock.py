"""A clock that can be moved and stopped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import frozen


def _utc_now() -> datetime:
    return datetime.now(UTC)


@frozen
class Standing:
    """How far a clock was moved, and where it stood still, if it did."""

    ahead: timedelta
    frozen: datetime | None


class MovableClock:
    """Returns the time, UTC, as a sandbox asks for it: the machine's, until it is moved.

    Args:
        clock: The machine's.

    Attributes:
        machine: Returns the machine's time, whatever this clock was moved to.
    """

    def __init__(self, clock: Callable[[], datetime] = _utc_now) -> None:
        self.machine = clock
        self._ahead = timedelta(0)
        self._frozen: datetime | None = None

    def __call__(self) -> datetime:
        """Return the time now."""
        return self.machine() + self._ahead if self._frozen is None else self._frozen

    @property
    def standing(self) -> Standing:
        """Where it stands now."""
        return Standing(self._ahead, self._frozen)

    def stand(self, standing: Standing) -> None:
        """Go on as far ahead of the machine's as it was, or stand still where it stood."""
        self._ahead, self._frozen = standing.ahead, standing.frozen

    def move(self, to: datetime, *, is_frozen: bool) -> None:
        """Go on from there, or stand still there."""
        self.stand(Standing(to - self.machine(), to if is_frozen else None))
