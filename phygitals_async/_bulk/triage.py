"""What becomes of a key once it was looked up: its outcome is set out, or it is set aside and looked up again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from phygitals_async._api.operation import Effect
from phygitals_async._bulk.outages import Outages, Suspect, shows_it_is_up
from phygitals_async._bulk.queues import Queues
from phygitals_async._calls.lookups import Lookup, Run
from phygitals_async._calls.verdicts import asked_pause, judge
from phygitals_async._loop.wait_queue import WaitQueue
from phygitals_async.errors import AuthenticationError, ClientClosed, NotAttempted, PhygitalsError

K = TypeVar("K")


class Triage(Generic[K]):
    """Decides of each key that was looked up, and of the run when its server is down. It waits for nothing.

    Args:
        run: The run.
        queues: Where outcomes are set out.

    Attributes:
        outages: Whether the server is down, and the keys that were set aside.
        again: Keys that are to be looked up again.
        answered: The key that was answered last, if there is one, which shows best whether the server is up again.
        up_again: Is notified when an outage is over, one way or the other.
        ended_by: Why no further key is attempted, or None.
    """

    def __init__(self, run: Run, queues: Queues[K]) -> None:
        self.outages: Outages[K] = Outages(run.patience)
        self.again: deque[Suspect[K]] = deque()
        self.answered: list[K] = []
        self._started = 0
        self.up_again = WaitQueue()
        self._run = run
        self._queues = queues
        self.ended_by: PhygitalsError | None = None

    def number(self) -> int:
        """Return the number of a lookup that starts now."""
        self._started += 1
        return self._started

    def is_over_for(self, suspect: Suspect[K]) -> bool:
        """Set out a key that is not attempted any more, and say whether it is one."""
        if self.ended_by is None:
            return False
        # One that was to be looked up again has an error of its own.
        self._queues.put(suspect.key, None, suspect.error or _not_attempted(self.ended_by))
        return True

    def looked_up(self, suspect: Suspect[K], brought: Any, number: int, lookup: Lookup) -> None:
        """Take in what the lookup of this number brought."""
        self._queues.put(suspect.key, brought, None)
        self._was_answered(suspect, number, lookup)

    def failed(self, suspect: Suspect[K], error: PhygitalsError, number: int, lookup: Lookup, now: float) -> None:
        """Take in how the lookup of this number failed."""
        if isinstance(error, AuthenticationError):
            self.end_by(error)
        elif self._is_set_aside(suspect, lookup, error, now):
            return
        self._queues.put(suspect.key, None, error)
        if shows_it_is_up(error):
            self._was_answered(suspect, number, lookup)
        elif isinstance(error, ClientClosed):
            self.note_answer(number)

    def probed(self, error: PhygitalsError | None, number: int) -> None:
        """Take in what the lookup of this number, of a key that had its outcome before, says of the server."""
        if isinstance(error, AuthenticationError):
            self.end_by(error)
        if shows_it_is_up(error) or isinstance(error, ClientClosed):
            self.note_answer(number)
        else:
            self.outages.probed_in_vain()

    def note_answer(self, number: int) -> None:
        """Take in that the lookup of this number was answered."""
        if not self.outages.suspects and not self.outages.ongoing:
            return
        again, failed = self.outages.answered(number)
        self.again.extend(again)
        self._give_up(failed)
        if not self.outages.ongoing:
            self.up_again.notify_all()

    def settle(self, now: float) -> bool:
        """Where no other lookup will show whose fault it was: find out, or take it for the keys'.

        Return whether there is more to do.
        """
        if not self.outages.suspects or self._run.counts.in_flight:
            return False
        worth_it = self.outages.may_be_hiccup or not self._queues.ended
        if self.answered and worth_it and self.ended_by is None:
            self.outages.begin(now)
            return True
        self._give_up(self.outages.take_all())
        return False

    def lose_patience(self) -> None:
        """Attempt no further key: the outage has lasted too long."""
        suspects = self.outages.take_all()
        self.end_by(next((s.error for s in reversed(suspects) if s.error is not None), NotAttempted("")))
        self._give_up(suspects)

    def end_by(self, error: PhygitalsError) -> None:
        """Attempt no further key."""
        self.ended_by = self.ended_by or error
        self._run.end()
        self._give_up(self.outages.take_all())
        self.up_again.notify_all()

    def _was_answered(self, suspect: Suspect[K], number: int, lookup: Lookup) -> None:
        if lookup.may_repeat:
            self.answered = [suspect.key]
        self.note_answer(number)

    def _is_set_aside(self, suspect: Suspect[K], lookup: Lookup, error: PhygitalsError, now: float) -> bool:
        """Keep what failed in a way that may pass until it shows whose fault it was, and say whether it is kept."""
        verdict = judge(error, Effect.READS)
        hopeless = self.ended_by is not None or self.outages.is_hopeless(suspect, now)
        if hopeless or not verdict.may_pass or not lookup.may_repeat or not self._run.patience:
            return False
        self._queues.release()
        suspect.error, suspect.seen = error, self._started
        asked = asked_pause(error)
        self.outages.failed(suspect, now, asked, is_limit=verdict.is_limit and asked is not None)
        return True

    def _give_up(self, suspects: Iterable[Suspect[K]]) -> None:
        for suspect in suspects:
            self._queues.reserve()
            self._queues.put(suspect.key, None, suspect.error)


def _not_attempted(because: PhygitalsError) -> NotAttempted:
    refused = isinstance(because, AuthenticationError)
    why = "the API key was refused earlier in this run" if refused else "this run's patience with the server has ended"
    if not isinstance(because, AuthenticationError | NotAttempted):
        why += f": {because}"
    error = NotAttempted(f"not tried: {why}")
    error.__cause__ = because
    return error
