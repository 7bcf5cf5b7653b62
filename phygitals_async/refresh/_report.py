"""What one call of `refresh` did."""

from __future__ import annotations

from attrs import frozen

from phygitals_async._bulk.outcomes import Failed
from phygitals_async.errors import PhygitalsError
from phygitals_async.refresh._store import Run


@frozen
class RefreshReport:
    """What one call of `refresh` did.

    Attributes:
        run: The run as it stands in the store, with the counts of every call that went on with it.
        asked: Users looked up by this call, the failed ones among them.
        skipped: Users not asked again, since this run had looked them up before, or their id came twice.
        failed: Users whose lookup failed in this call; the next run asks again.
        failures: The first hundred of them, with the errors.
        stopped_by: What ended the run before all users were looked up: an `AuthenticationError`, or the `NotAttempted`
            of an outage that outlasted the patience; None where nothing did.
    """

    run: Run
    asked: int = 0
    skipped: int = 0
    failed: int = 0
    failures: tuple[Failed[str], ...] = ()
    stopped_by: PhygitalsError | None = None

    @property
    def resumable(self) -> bool:
        """Whether users are left to be looked up: the same call goes on with them."""
        return self.run.finished_at is None
