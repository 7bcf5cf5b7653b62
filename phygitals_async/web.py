"""What every web application around the client needs, whatever its framework.

`Lifespan` opens the client once and closes it, and owns the work that must not end with the request that asked for it;
`explain` turns an error into an HTTP status and a sentence for a visitor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import anyio
from attrs import frozen

from phygitals_async import errors
from phygitals_async._checks import check_seconds
from phygitals_async._loop.loops import running_loop
from phygitals_async._loop.waiting import wait_out
from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import ClientClosed, OutcomeUnknown, PhygitalsError
from phygitals_async.observer import logger

__all__ = ["Explanation", "Lifespan", "explain"]

T = TypeVar("T")


class Lifespan:
    """One client for the whole life of an application, and the work that no request ends. Use it as `async with`.

    A browser may go away at any moment, and most servers then cancel its request; what moves money or goods must go on,
    and its outcome must be kept. Work that is given to `to_the_end` or `start` belongs to the application instead. At
    the end of the block the work under way is waited for, and then the client is closed.

    It runs on asyncio and trio, and is entered and left in the same event loop.

    Args:
        make_client: Makes the client when the block is entered, so that a server that forks has one in each process.
        grace: Seconds that work under way has at the end of the block. What is left then is cancelled; a client with a
            `journal` has written down what was asked for, so that `phygitals_async.journal.reconcile` finds out.

    Attributes:
        api: The client, while the block runs.

    Raises:
        ConfigurationError: `grace` is not a number of seconds, or what `make_client` raises.
    """

    api: PhygitalsClient

    def __init__(self, make_client: Callable[[], PhygitalsClient] = PhygitalsClient, *, grace: float = 60.0) -> None:
        self._make_client = make_client
        self._grace = check_seconds("grace", grace)
        self._under_way: set[_Work[Any]] = set()
        self._ending = False

    async def __aenter__(self) -> Self:
        self.api = self._make_client()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ending = True
        try:
            with anyio.move_on_after(self._grace):
                await self._all_over()
        finally:
            for work in self._under_way:
                work.cancel()
            try:
                await wait_out(self._all_over)
            finally:
                await wait_out(self.api.aclose)

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Start work that belongs to the application, and return at once. It should keep its own outcome.

        An error that comes out of it is logged.

        Args:
            work: A coroutine, such as `sell_and_record(item_id)`.

        Raises:
            ClientClosed: The application is shutting down, and nothing was started.
        """
        self._start(work)

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what work returns, or raise what it raises; where the caller is cancelled meanwhile, it goes on.

        What comes out of it then is logged where it is an error, and lost where it is a value: the work itself should
        record what must be kept.

        Args:
            work: A coroutine, such as `sell_and_record(item_id)`: the call and what keeps its outcome.

        Raises:
            ClientClosed: The application is shutting down, and nothing was started.
            OutcomeUnknown: It shut down meanwhile, and the work was not over in time.
        """
        started = self._start(work)
        started.is_waited_for = True
        try:
            await started.over.wait()
        except BaseException:  # Cancelled, in whatever way the event loop has; passed on.
            started.leave()
            raise
        return started.result()

    def _start(self, work: Coroutine[Any, Any, T]) -> _Work[T]:
        if self._ending:
            work.close()
            msg = "the application is shutting down: nothing was started"
            raise ClientClosed(msg)
        started = _Work(work)

        def ended() -> None:
            self._under_way.discard(started)
            started.end()

        self._under_way.add(started)
        started.cancel = running_loop().spawn(started.run, copy_context(), ended)
        return started

    async def _all_over(self) -> None:
        while self._under_way:
            await next(iter(self._under_way)).over.wait()


class _Work(Generic[T]):
    cancel: Callable[[], object]
    _value: T

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.over = anyio.Event()
        self.is_waited_for = False
        self._work = work
        self._error: BaseException = OutcomeUnknown("the application shut down before this was over")
        self._has_value = False

    async def run(self) -> None:
        try:
            self._value = await self._work
            self._has_value = True
        except anyio.get_cancelled_exc_class():
            # A request that still waits is not cancelled itself, and is told the above.
            raise
        except BaseException as error:  # Whoever waits for it is told; what ends the program goes on as well.
            self._error = error
            if not isinstance(error, Exception):
                raise

    def end(self) -> None:
        # Where the event loop ended it before its first step.
        self._work.close()
        self.over.set()
        self._tell()

    def leave(self) -> None:
        self.is_waited_for = False
        self._tell()

    def _tell(self) -> None:
        if self.over.is_set() and not self._has_value and not self.is_waited_for:
            logger.error("work that no request waits for ended with an error", exc_info=self._error)

    def result(self) -> T:
        if self._has_value:
            return self._value
        raise self._error


@frozen
class Explanation:
    """An error as an application answers it. It quotes neither the API nor the key, nor anything else of the error.

    Attributes:
        status: The HTTP status.
        code: The error's class, for programs, and to translate by.
        message: A sentence for a visitor.
        retry_after: Whole seconds after which to try again, where the API said so.
        session_id: The purchase to ask for later, where one was started.
    """

    status: int
    code: str
    message: str
    retry_after: int | None = None
    session_id: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is for the application's operator and not its visitor: worth an error in the log."""
        return self.status >= 500

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer: `Retry-After`, where the API said so."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def to_dict(self) -> dict[str, Any]:
        """Return what to answer as JSON: `code` and `message`, and the others where there are any."""
        optional = {"retry_after": self.retry_after, "session_id": self.session_id}
        known = {name: value for name, value in optional.items() if value is not None}
        return {"code": self.code, "message": self.message, **known}


def explain(error: PhygitalsError) -> Explanation:
    """Return the HTTP status and a sentence for a visitor.

    A class that is not named here is answered as the nearest one above it, so that an error of a later version of this
    library has an answer too. What is neither done nor failed yet is a 202: no browser or proxy takes that for an
    invitation to try again.

    Args:
        error: Any error of this library. Log it where `is_ours` says so: only its text tells what was wrong.
    """
    status, message = next(_ANSWERS[cls] for cls in type(error).__mro__ if cls in _ANSWERS)
    told = error.to_dict()
    wait = told.get("retry_after")
    return Explanation(
        status, told["class"], message, None if wait is None else math.ceil(wait), told.get("session_id")
    )


_LATER: Final = "The card service is not available right now. Nothing was done: please try again later."
_BROKEN: Final = "The card service does not answer as it should. Please try again later."
_REFUSED: Final = "The card service refused this."
_OURS: Final = "Something is wrong on our side. We are looking into it."
_OPEN: Final = "It is not known yet whether this was done. Please do not repeat it: it is being looked up."

# An error is answered as the first of its classes that is listed, from its own upwards.
_ANSWERS: Final[Mapping[type, tuple[int, str]]] = {
    errors.InvalidArgumentError: (422, "Something in this form is missing, or not what it should be."),
    errors.AddressRejected: (400, "This address cannot be shipped to as it is written. Please check it."),
    errors.AmountOutOfRange: (400, "This pack cannot be bought that many times at once."),
    errors.CountryNotSupported: (400, "This country cannot be shipped to."),
    errors.MissingField: (400, "Something in this form is missing."),
    errors.NothingShippable: (400, "None of these cards can be shipped."),
    errors.BadRequest: (400, _REFUSED),
    errors.NotOwned: (403, "This card is not among yours. It may have been sold or shipped."),
    errors.NotFound: (404, "This does not exist."),
    errors.CardNotFound: (404, "This card does not exist."),
    errors.ItemNotFound: (404, "This card cannot be found. It may have been sold or shipped."),
    errors.OrderNotFound: (404, "This order does not exist."),
    errors.PackNotFound: (404, "This pack does not exist any more."),
    errors.UserNotFound: (404, "There are no cards yet."),
    errors.ItemAlreadyShipped: (409, "A card of this order is being shipped already."),
    errors.OutOfStock: (409, "This pack is sold out."),
    errors.SellbackInProgress: (409, "This card is being sold already."),
    errors.ItemExpired: (410, "The offer to buy this card back has ended."),
    errors.QuoteExpired: (410, "This shipping offer has ended. Please ask for a new one."),
    errors.OutcomeUnknown: (202, _OPEN),
    errors.PurchasePending: (202, "The purchase is still under way."),
    errors.ConfigurationError: (500, _OURS),
    errors.AuthenticationError: (500, _OURS),
    errors.PermissionDenied: (500, _OURS),
    errors.TransactionFailed: (502, "The card service could not complete this."),
    errors.ShippingRequestFailed: (502, "The card service could not take this order."),
    errors.RateLimited: (503, "The card service is busy. Please try again in a moment."),
    errors.ClientClosed: (503, _LATER),
    errors.StoreError: (503, _LATER),
    errors.DeadlineExceeded: (504, "The card service took too long to answer. Please try again later."),
    # TransportError, ServerError, DecodeError, and what a later version has besides.
    PhygitalsError: (502, _BROKEN),
}
