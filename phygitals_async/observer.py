"""Hooks for metrics and traces, and the log lines the library writes itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from attrs import define, frozen

from phygitals_async.errors import PhygitalsError
from phygitals_async.progress import Progress

logger: Final = logging.getLogger("phygitals_async")


@define(eq=False, weakref_slot=True)
class Call:
    """One call of an operation, the same object in every hook that concerns it.

    Attributes:
        operation: The client method, such as `get_inventory`.
        attempts: Requests handed to the transport so far.
    """

    operation: str
    attempts: int = 0


@frozen
class Attempt:
    """One finished attempt. It holds no URL, no id, no header and no body.

    Attributes:
        status: The HTTP status, or None where there was no answer.
        error: The class of the error it failed with, or None. The error itself knows ids and texts.
        request_bytes: Size of the request's body.
        response_bytes: Size of the decoded response body; 0 where there was none.
        seconds: How long it took.
    """

    status: int | None
    error: type[PhygitalsError] | None
    request_bytes: int
    response_bytes: int
    seconds: float


class Observer(Protocol):
    """What is told of calls.

    Its methods must return quickly. What they raise is logged and not passed on: a fault in observing must not lose
    the result of a purchase.
    """

    def started(self, call: Call) -> None:
        """A call begins."""
        ...

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt is over."""
        ...

    def retrying(self, call: Call, seconds: float) -> None:
        """A failed attempt will be repeated after a pause of `seconds`."""
        ...

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """A call is over: it has a usable answer or was cancelled, or it raises an error of the class `error`."""
        ...

    def progressed(self, progress: Progress) -> None:
        """A bulk run has given out one more outcome."""
        ...


def notify(hook: Callable[..., None], *arguments: Any) -> None:
    """Call a hook; log what it raises."""
    try:
        hook(*arguments)
    except Exception:  # The observer's own bug, shown with its traceback; the call it watches goes on.
        logger.exception("an observer of phygitals_async failed")
