"""A clock that can be moved and stopped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import frozen


def _utc_now() -> datetime:
    return datetime.now(UTC)


@frozen
class Standing:
    """Where a clock stood, and whether it stood still."""

    at: datetime
    is_frozen: bool


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
        return Standing(self(), self._frozen is not None)

    def stand(self, standing: Standing) -> None:
        """Go on from there, or stand still there."""
        self._ahead = standing.at - self.machine()
        self._frozen = standing.at if standing.is_frozen else None
