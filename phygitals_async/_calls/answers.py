"""What an answer came with, for who asks: its status, some of its headers, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import iscoroutine
from typing import Final, Generic, TypeVar

from attrs import define, field, frozen

from phygitals_async._api_key import ApiKey, shows_key
from phygitals_async._checks import shown
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.transport import Response

T = TypeVar("T")

# What makes no call, or of which there is no one answer to tell.
_NO_ONE_ANSWER: Final = frozenset(
    {"aclose", "call_with_response", "close", "get_inventories", "stream_inventories", "watch_order"}
)
# What helps to find a request again, or to tell where its answer came from. Others may hold cookies, or anything.
_SHOWN: Final = frozenset(
    {
        "age", "cache-control", "cf-cache-status", "cf-ray", "content-length", "content-type", "date", "etag",
        "last-modified", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after", "server",
        "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-request-id",
    }
)  # fmt: skip


@frozen
class Answer(Generic[T]):
    """What a method returned, and what came with it.

    Where the method makes several calls, status and headers are those of the last that was answered.

    Attributes:
        value: What the method returned.
        status: The HTTP status.
        headers: Headers of the response, by their names in lower case: those that are known to tell something of the
            request and to hold no secret, such as `date`, `cf-ray` and `x-request-id`.
        attempts: Requests handed to the transport for all answered calls, retries included.
        seconds: How long the method took in all, waits and pauses included.
    """

    value: T
    status: int
    headers: Mapping[str, str] = field(hash=False)
    attempts: int
    seconds: float


@define(eq=False)
class Taken:
    """What is known of the calls made in a block."""

    _status: int | None = None
    _headers: Mapping[str, str] = field(factory=dict)
    _attempts: int = 0

    def note(self, response: Response, attempts: int, key: ApiKey) -> None:
        """Note a call that was answered."""
        named = {name.lower(): value for name, value in response.headers.items()}
        self._status = response.status
        self._headers = {name: value for name, value in named.items() if name in _SHOWN and not shows_key(key, value)}
        self._attempts += attempts

    def answer(self, value: T, seconds: float) -> Answer[T]:
        """Return what is known, with the value that came of it.

        Raises:
            InvalidArgumentError: No call was answered.
        """
        if self._status is None:
            msg = "call_with_response takes a method that makes a call, and what it was given made none"
            raise InvalidArgumentError(msg)
        return Answer(value, self._status, self._headers, self._attempts, seconds)


taking: Final[ContextVar[Taken | None]] = ContextVar("taking", default=None)


def check_method(client: object, method: object) -> None:
    """Refuse, before anything is sent, what `call_with_response` could tell nothing of.

    Raises:
        InvalidArgumentError: It is no method of the client, or one that does not make one call.
    """
    if iscoroutine(method):
        # It was made for nothing, and warns of that where nobody closes it.
        method.close()
        found = "the coroutine of a call: leave out the parentheses"
    elif getattr(method, "__self__", None) is not client:
        found = f"{shown(method)}, which is none"
    elif (name := getattr(method, "__name__", "")) in _NO_ONE_ANSWER:
        found = f"{name}, which has no one answer to tell of"
    else:
        return
    msg = (
        "call_with_response takes a method of this client that makes one call, and then its arguments, such as "
        f"call_with_response(api.get_inventory, 'user_abc123'); it was given {found}"
    )
    raise InvalidArgumentError(msg)


@contextmanager
def take() -> Iterator[Taken]:
    """Take note of the calls that are answered in the block."""
    token = taking.set(taken := Taken())
    try:
        yield taken
    finally:
        taking.reset(token)
