"""The seam between the core and whatever moves the bytes.

A transport knows nothing of JSON, models, retries, money or the meaning of the API key: it sends one
`Request` and returns one `Response`. Transports wrap transports; that is how recording, caching, tracing
and fault injection are added.

Beside the protocol is what transports need: `Affinity` ties one to its event loop, `check_count` and `check_seconds`
refuse bad settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from attrs import define, field, frozen

from phygitals_async._checks import check_count, check_seconds
from phygitals_async._loop.affinity import Affinity
from phygitals_async.errors import Sent

__all__ = ["Affinity", "Delivery", "Memo", "Request", "Response", "Transport", "check_count", "check_seconds"]


@define(eq=False)
class Delivery:
    """How far one request has come: kept by the code that makes its connection, and by nobody else.

    That code alone can know that nothing was sent; the class of an exception cannot tell, since hooks, tracers and bugs
    raise any class at any moment. A transport wraps the making of the connection, and nothing more, in
    `with request.delivery.connecting():`. Where the block is left by an exception, cancellation included, nothing has
    left; where it ends, bytes may leave from then on. A transport that cannot tell never enters it.

    Attributes:
        started: Whether a connection came to be, so that some of the request may have left.
        failed: Whether making a connection ended without one.
    """

    started: bool = False
    failed: bool = False

    @property
    def sent(self) -> Sent:
        """`Sent.NEVER` where no connection came to be, else `Sent.UNKNOWN`."""
        return Sent.NEVER if self.failed and not self.started else Sent.UNKNOWN

    def connecting(self) -> Self:
        """Return the context manager to make the connection in."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.started = True
        else:
            self.failed = True


@frozen
class Request:
    """One HTTP request, ready to be sent as it stands.

    Its repr shows neither headers (the API key is one of them) nor body (addresses travel there).

    Attributes:
        method: `GET` or `POST`.
        url: Absolute and already percent-encoded. Send it byte for byte: resolving or re-quoting it can
            turn a sandbox call into a production call.
        headers: Header names in the spelling to send.
        body: The bytes to send, or None for no body.
        fresh_connection: Whether it must go out on a connection made for it: one that was used before may be closing,
            and then nobody could say what became of the request. Where it is False, either will do.
        delivery: How far this request has come. A wrapper that changes a request uses `attrs.evolve`, which keeps it.
    """

    method: str
    url: str
    # No part of the hash, as a mapping has none.
    headers: Mapping[str, str] = field(repr=False, hash=False)
    body: bytes | None = field(default=None, repr=False)
    fresh_connection: bool = field(default=False, kw_only=True)
    delivery: Delivery = field(factory=Delivery, kw_only=True, repr=False, eq=False)


@define(eq=False)
class Memo:
    """What the client made of a body, and of which; a copy or a pickle of it is empty."""

    _made: tuple[tuple[object, ...], bytes, object] | None = field(default=None, init=False)

    def recall(self, made_for: tuple[object, ...], body: bytes) -> object:
        """Return what was made of this very body, for the same, or None."""
        made = self._made
        return made[2] if made is not None and made[1] is body and made[0] == made_for else None

    def keep(self, made_for: tuple[object, ...], body: bytes, result: object) -> None:
        """Keep what was made."""
        self._made = made_for, body, result

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


@frozen
class Response:
    """One HTTP response.

    Attributes:
        status: The status code, an int and not an enum: CDNs answer with numbers no enum knows.
        headers: Header names in any case.
        body: The whole body, content encoding removed.
        memo: For a response that is given more than once: with `attrs.evolve(response, memo=Memo())` the client decodes
            it once.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False, hash=False)
    body: bytes = field(repr=False)
    memo: Memo | None = field(default=None, kw_only=True, repr=False, eq=False)


class Transport(Protocol):
    """What the core needs from an HTTP engine."""

    async def send(self, request: Request) -> Response:
        """Send `request` exactly once and return the answer, whatever its status.

        It follows no redirect, keeps no cookie and adds no retry. It sets no limit on the whole exchange:
        the core cancels it at the deadline, and cancellation must pass through.

        *Never sent* is certain or not said. It is said by `request.delivery`, or by a `ConnectError` that the code
        which makes the connection raises itself, never by translating the class of an exception that came from
        somewhere in the exchange. An exception not listed here is taken for `TransportError`, unknown whether sent.

        Raises:
            ConnectError: No connection was made, so the request was certainly not sent.
            ConnectionLost: The connection broke before the whole answer was read.
            ProtocolError: The answer is not HTTP.
            ResponseTooLarge: The body is larger than the transport's cap.
            ClientClosed: `aclose()` was called before.
            ConfigurationError: The transport does not run on this event loop.
        """
        ...

    async def aclose(self) -> None:
        """Release every connection. Calling it again does nothing."""
        ...
