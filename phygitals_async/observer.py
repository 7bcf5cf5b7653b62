"""Hooks for metrics and traces, and the log lines the library writes itself."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol

from attrs import define, frozen

from phygitals_async.errors import ConfigurationError, PhygitalsError
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
    """Receives the events of calls.

    Its methods must be plain functions that return quickly. What they raise is logged, once for each of them, and not
    passed on: a fault in observing must not lose the result of a purchase. A subclass inherits those it does not need.
    """

    def started(self, call: Call) -> None:
        """A call begins."""
        return

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt is over."""
        return

    def retrying(self, call: Call, seconds: float) -> None:
        """A failed attempt will be repeated after a pause of `seconds`."""
        return

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """A call is over: it has a usable answer or was cancelled, or it raises an error of the class `error`."""
        return

    def progressed(self, progress: Progress) -> None:
        """A bulk run has given out one more outcome."""
        return


HOOKS: Final = tuple(name for name in vars(Observer) if not name.startswith("_"))


class Hooks:
    """Calls the methods of an observer, and keeps what they raise away from the call they watch.

    Raises:
        ConfigurationError: The observer lacks one of the methods, or has it as a coroutine function.
    """

    def __init__(self, observer: Observer) -> None:
        for name in HOOKS:
            hook = getattr(observer, name, None)
            if not callable(hook) or iscoroutinefunction(hook):
                msg = f"the observer's {name} must be a plain method"
                raise ConfigurationError(msg)
        self._observer = observer
        self._faulty: set[str] = set()

    def notify(self, name: str, *arguments: Any) -> None:
        """Call one of the `HOOKS`."""
        try:
            getattr(self._observer, name)(*arguments)
        except Exception:  # The observer's own bug, logged with its traceback: it must not cost a purchase its result.
            if name not in self._faulty:
                self._faulty.add(name)
                logger.exception("the observer's %s failed; it will be called on, and not logged again", name)
