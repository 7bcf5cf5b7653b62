"""What a call needs to know of the bulk run that it is made for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import anyio
from attrs import define, field


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
class Run:
    """A bulk run, as far as it concerns the calls that are made for it.

    Attributes:
        counts: What it counts.
        patience: Seconds that it waits for a server that is down or limits it.
    """

    counts: Counts
    patience: float
    _is_over: bool = False
    _waiting: set[anyio.CancelScope] = field(factory=set)

    @contextmanager
    def while_it_goes_on(self) -> Iterator[None]:
        """Wait in this block for a turn: it is left early where the run attempts no further key."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if self._is_over:
                    scope.cancel()
                yield
            finally:
                self._waiting.discard(scope)

    def end(self) -> None:
        """Attempt no further key: what waits for its turn need not wait on."""
        self._is_over = True
        for scope in self._waiting:
            scope.cancel()


@define(eq=False)
class Lookup:
    """One lookup of a bulk run, in the context of which its calls are made.

    Attributes:
        run: The run.
        outer: The lookup in which the run was entered, if it was one.
        may_repeat: Whether the run may make the lookup a second time: no call in it has moved money or goods.
    """

    run: Run
    outer: Lookup | None = None
    may_repeat: bool = True

    def note_irreversible(self) -> None:
        """Note that money or goods may have moved, in this lookup and so in those around it."""
        lookup: Lookup | None = self
        while lookup is not None:
            lookup.may_repeat, lookup = False, lookup.outer


current_lookup: Final[ContextVar[Lookup | None]] = ContextVar("current_lookup", default=None)
