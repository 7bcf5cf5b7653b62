"""What a call needs to know of the bulk run that it is made for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from attrs import define


@define(eq=False)
class Counts:
    """What a bulk run counts; `Progress` shows it."""

    found: int = 0
    failed: int = 0
    in_flight: int = 0
    attempts: int = 0
    throttled: int = 0
    waiting: bool = False


@define(eq=False)
class Lookup:
    """One lookup of a bulk run, in the context of which its calls are made.

    Attributes:
        counts: The run's.
        patience: Seconds that the run waits for a server that is down or limits it.
        outer: The lookup in which the run was entered, if it was one.
        may_repeat: Whether the run may make the lookup a second time: no call in it has moved money or goods.
    """

    counts: Counts
    patience: float
    outer: Lookup | None = None
    may_repeat: bool = True

    def note_irreversible(self) -> None:
        """Note that money or goods may have moved, in this lookup and so in those around it."""
        lookup: Lookup | None = self
        while lookup is not None:
            lookup.may_repeat, lookup = False, lookup.outer


current_lookup: Final[ContextVar[Lookup | None]] = ContextVar("current_lookup", default=None)
