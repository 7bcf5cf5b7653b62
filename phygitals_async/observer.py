"""Hooks for metrics and traces, and the log lines the library writes itself."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from attrs import define, field, frozen

from phygitals_async.errors import ConfigurationError, PhygitalsError
from phygitals_async.progress import Progress

logger: Final = logging.getLogger("phygitals_async")


@define(eq=False, weakref_slot=True)
class Call:
    """One call of an operation, the same object in every hook that concerns it.

    Attributes:
        operation: The client method, such as `get_inventory`.
        attempts: Requests handed to the transport so far.
        method: The HTTP method.
        path: The path of the URL, with a name in braces in the place of each id.
        host: The host of the URL.
        port: Its port.
    """

    operation: str
    attempts: int = 0
    method: str = field(default="", kw_only=True)
    path: str = field(default="", kw_only=True)
    host: str = field(default="", kw_only=True)
    port: int = field(default=0, kw_only=True)


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

    def attempting(self, call: Call) -> None:
        """An attempt begins. It is sent in the task and context that this is called in.

        An observer that is no subclass may leave this one out.
        """
        return

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt is over. Unless it was abandoned with its event loop, this is called where `attempting` was."""
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
_OPTIONAL: Final = "attempting"


class Hooks:
    """Calls the methods of an observer, and keeps what they raise away from the call they watch.

    Args:
        observer: Whose methods.
        root: What the path of every request is appended to.

    Raises:
        ConfigurationError: The observer lacks one of the methods, or has it as a coroutine function.
    """

    def __init__(self, observer: Observer, root: str) -> None:
        for name in HOOKS:
            hook = getattr(observer, name, _nothing if name == _OPTIONAL else None)
            if not callable(hook) or iscoroutinefunction(hook):
                msg = f"the observer's {name} must be a plain method"
                raise ConfigurationError(msg)
        self._observer = observer
        self._faulty: set[str] = set()
        url = urlsplit(root)
        self._path = url.path
        self._host = url.hostname or ""
        self._port = url.port or {"http": 80}.get(url.scheme, 443)

    def begin(self, operation: str, method: str, path: str) -> Call:
        """Tell of a call that begins, and return what every other hook gets to see of it."""
        call = Call(operation, method=method, path=self._path + path, host=self._host, port=self._port)
        self.notify("started", call)
        return call

    def notify(self, name: str, *arguments: Any) -> None:
        """Call one of the `HOOKS`."""
        try:
            getattr(self._observer, name, _nothing)(*arguments)
        except Exception:  # The observer's own bug, logged with its traceback: it must not cost a purchase its result.
            if name not in self._faulty:
                self._faulty.add(name)
                logger.exception("the observer's %s failed; it will be called on, and not logged again", name)


def _nothing(*_: object) -> None:
    """Stand in for a hook that was left out."""
