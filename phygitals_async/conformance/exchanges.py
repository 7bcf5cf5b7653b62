"""One request put under a fault, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Final

import anyio

from phygitals_async import Request, Response, ResponseTooLarge, Sent, Transport, TransportError
from phygitals_async.conformance.contract import LONGEST_WAIT
from phygitals_async.conformance.faults import ANSWERED, LOST, ODD, SILENT, TOO_LARGE, UNSENT
from phygitals_async.conformance.server import GOOD, FaultServer

KEY: Final = "sandbox-canary-5e3b0c7d91aa4f62"
GOOD_BODY: Final = b'{"user_id": "user_abc123", "items": [], "some": "more bytes, so that there is something to cut"}'

# Seconds after which an exchange that may have no end counts as one.
_PATIENCE: Final = 0.2


def read(url: str) -> Request:
    """Return a request that may be repeated."""
    return Request("GET", f"{url}/api/v1/inventory/user_abc123", {"X-API-Key": KEY, "Accept": "application/json"})


def sale(url: str) -> Request:
    """Return a request that moves money."""
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    return Request("POST", f"{url}/api/v1/vm/buyback", headers, b'{"item_id": "i"}', fresh_connection=True)


async def attempt(transport: Transport, request: Request, *, may_last: bool = False) -> str:
    """Send `request` and say what came of it; one that does not end is cancelled.

    Raises:
        AssertionError: An error shows the API key, or contradicts what it says of the request.
    """
    with anyio.move_on_after(_PATIENCE if may_last else LONGEST_WAIT):
        try:
            return _named(await transport.send(request))
        except TransportError as error:
            return _checked(error, request)
    return UNSENT if request.delivery.sent is Sent.NEVER else SILENT


async def recover(transport: Transport, server: FaultServer) -> str:
    """Let the server be good again and send reads until one is answered; return what came of the last.

    The first may be lost on a connection that the fault has spoilt.
    """
    await server.turn(GOOD)
    await server.stop_listening()
    await server.listen()
    outcome = LOST
    for _ in range(3):
        if outcome in (LOST, UNSENT):
            outcome = await attempt(transport, read(server.url))
    return outcome


def _checked(error: TransportError, request: Request) -> str:
    assert type(error).sent is error.sent, f"{error!r} says {error.sent}"
    for text in _texts(error):
        assert KEY not in text, f"{error!r} shows the API key"
    if isinstance(error, ResponseTooLarge):
        return TOO_LARGE
    return UNSENT if Sent.NEVER in (error.sent, request.delivery.sent) else LOST


def _named(response: Response) -> str:
    return ANSWERED if (response.status, response.body) == (200, GOOD_BODY) else ODD


def _texts(error: BaseException) -> Iterator[str]:
    """Everything a program may print of an error."""
    formatted = traceback.TracebackException.from_exception(error)
    yield "".join(formatted.format())
    one: BaseException | None = error
    while one is not None:
        yield repr(one) + repr(vars(one)) + repr(one.args)
        one = one.__cause__ or one.__context__
