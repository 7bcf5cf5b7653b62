"""What the sync client does that is not written out method by method."""

from __future__ import annotations

import functools
import os
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, NoReturn, ParamSpec, Self, TypeVar, cast

from phygitals_async import client
from phygitals_async._api.arguments import check_user_ids
from phygitals_async._bulk import fan_out
from phygitals_async._calls.answers import Answer, check_method, take
from phygitals_async._loop.background import Background
from phygitals_async._sync.streams import FanOut, plain
from phygitals_async.errors import ClientClosed
from phygitals_async.models import Purchase, Sellback, ShippingRequest, StartedPurchase

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_END: Final = object()


class Door:
    """The sync side of an async client: each call runs in the client's event loop, in a thread of its own."""

    def __init__(self, api: client.PhygitalsClient) -> None:
        self._api = api
        # The thread of the loop does not survive a fork, and a lock may have been held in it.
        self._by_process: dict[int, Background] = {}

    def __repr__(self) -> str:
        api = getattr(self, "_api", None)
        return "<sync PhygitalsClient, not configured>" if api is None else f"<sync {repr(api)[1:]}"

    def __reduce__(self) -> NoReturn:
        msg = "a PhygitalsClient holds connections and a key, and cannot be pickled"
        raise TypeError(msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self, *, grace: float = 5.0) -> None:
        """Close the client and its transport, and end its thread. Closing again does nothing.

        Calls made afterwards raise `ClientClosed`. It returns when every call has ended, in whatever thread.

        Args:
            grace: Seconds that calls in flight are given to finish. Then the transport is closed under them.
        """
        self._background.close(functools.partial(self._api.aclose, grace=grace))

    def call_with_response(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Call one of the client's methods, and return what it returns with the status, headers and time it took.

        Such as `answer = api.call_with_response(api.get_inventory, "user_abc123")`: `answer.value` is the inventory. An
        error is raised as by the method itself: with its `attempts`, and with the `status` where it is about an
        answer's.

        Args:
            method: A method of this client that makes one call, or one purchase; not a bulk run, nor `watch_order`.
            *args: What it takes.
            **kwargs: The same, by name.

        Raises:
            InvalidArgumentError: `method` is something else, such as the result of a call. Nothing was sent.
        """
        check_method(self, method)
        began = time.monotonic()
        # The call is made in a copy of this context.
        with take() as taken:
            value = method(*args, **kwargs)
        return taken.answer(value, time.monotonic() - began)

    @property
    def _background(self) -> Background:
        process = os.getpid()
        if process not in self._by_process:
            made = Background("a sync PhygitalsClient", self._api.aclose, _worth_telling)
            weakref.finalize(self, made.forget)
            # Of threads that come here at once, all take the same.
            self._by_process.setdefault(process, made)
        return self._by_process[process]

    def _call(self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._background.call(method, *args, **kwargs)
        except ClientClosed as error:
            if error.operation is None:
                # It did not get as far as the async client, which would say so.
                error.describe(method.__name__, {}, 0)
            raise

    def _stream(self, start: Callable[[AsyncIterable[K]], fan_out.FanOut[K, V]], keys: Iterable[K]) -> FanOut[K, V]:
        check_user_ids(keys)
        return FanOut(self, self._background, start, plain(keys))

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> object:
            return await anext(source, _END)

        # In a fork too, which cannot go on with it, and is told so.
        background = self._background
        while (value := background.call(step)) is not _END:
            yield cast("T", value)


def own(values: T) -> T:
    """Read an iterable here and now: in the loop's thread, what it reads from may refuse or break.

    What is no collection of ids is left to the client to refuse.

    Raises:
        InvalidArgumentError: Only an event loop can read it.
    """
    return values if isinstance(values, str | bytes) else cast("T", _listed(values))


def _listed(values: object) -> object:
    return list(plain(values)) if isinstance(values, Iterable | AsyncIterable) else values


def _worth_telling(result: object) -> str:
    """Return the text of a result that nobody could ask for a second time."""
    return repr(result) if isinstance(result, Purchase | Sellback | ShippingRequest | StartedPurchase) else ""
