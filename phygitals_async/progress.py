"""Counts of a bulk run, readable while it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from attrs import define, field


@define
class Progress:
    """How far a bulk run has come. The run updates it; read it at any time.

    Attributes:
        found: Keys that were answered.
        failed: Keys that ended in an error, those not attempted included.
        in_flight: Keys being looked up right now.
        attempts: Requests handed to the transport, retries included.
        throttled: How often the server's 429 slowed the run down, bursts counted once.
        limit: The most lookups the run has in flight now; it falls when the server throttles and recovers after.
        resumes: When the pause the server asked for ends, in seconds of the event loop's clock; 0 for none.
    """

    found: int = 0
    failed: int = 0
    in_flight: int = 0
    attempts: int = 0
    throttled: int = 0
    limit: int = field(default=0, eq=False)
    resumes: float = field(default=0.0, eq=False)

    @property
    def done(self) -> int:
        """Keys with an outcome, found or failed."""
        return self.found + self.failed


# Lets a call count its attempts for the bulk run it belongs to, whatever function the run fans out.
current_progress: Final[ContextVar[Progress | None]] = ContextVar("current_progress", default=None)
