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
        may_repeat: Whether the run may make the lookup a second time: no call in it has moved money or goods.
    """

    counts: Counts
    patience: float
    may_repeat: bool = True


current_lookup: Final[ContextVar[Lookup | None]] = ContextVar("current_lookup", default=None)
