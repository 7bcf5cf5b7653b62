"""Counts of a bulk run, readable while it runs."""

from __future__ import annotations

from phygitals_async._calls.lookups import Counts


class Progress:
    """How far a bulk run has come: read it at any time, from any task. It shows the run and does not steer it."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in ("found", "failed", "in_flight", "attempts"))
        return f"Progress({shown}, throttled={self.throttled}, waiting={self.waiting})"

    @property
    def found(self) -> int:
        """Keys that were answered."""
        return self._counts.found

    @property
    def failed(self) -> int:
        """Keys that ended in an error, those not attempted included."""
        return self._counts.failed

    @property
    def done(self) -> int:
        """Keys with an outcome, found or failed."""
        return self._counts.found + self._counts.failed

    @property
    def in_flight(self) -> int:
        """Keys being looked up right now."""
        return self._counts.in_flight

    @property
    def attempts(self) -> int:
        """Requests handed to the transport, retries included."""
        return self._counts.attempts

    @property
    def throttled(self) -> int:
        """How often the server's 429 slowed the run down, bursts counted once."""
        return self._counts.throttled

    @property
    def waiting(self) -> bool:
        """Whether the run waits for an outage, or a long pause that the server asked for, to end."""
        return self._counts.waiting
