"""One request put under a fault, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Final

import anyio

from phygitals_async import Request, Response, ResponseTooLarge, Sent, Transport, TransportError
from phygitals_async.conformance.contract import LONGEST_WAIT
from phygitals_async.conformance.faults import ANSWERED, LOST, ODD, SILENT, TOO_LARGE, UNSENT
from phygitals_async.conformance.peers import Peer
from phygitals_async.conformance.server import GOOD, FaultServer, Script

KEY: Final = "sandbox-canary-5e3b0c7d91aa4f62"
GOOD_BODY: Final = b'{"user_id": "user_abc123", "items": [], "some": "more bytes, so that there is something to cut"}'

# Seconds after which an exchange that may have no end counts as one.
_PATIENCE: Final = 0.1


def read(url: str) -> Request:
    """Return a request that may be repeated."""
    return Request("GET", f"{url}/api/v1/inventory/user_abc123", {"X-API-Key": KEY, "Accept": "application/json"})


def sale(url: str) -> Request:
    """Return a request that moves money."""
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    return Request("POST", f"{url}/api/v1/vm/buyback", headers, b'{"item_id": "i"}', fresh_connection=True)


async def attempt(transport: Transport, request: Request, *, begun: Callable[[], bool] | None = None) -> str:
    """Send `request` and say what came of it; one that does not end is cancelled.

    Args:
        transport: What sends it.
        request: It.
        begun: Where it may have no end: whether the server has begun to do what it does about it.

    Raises:
        AssertionError: An error shows the API key, or contradicts what it says of the request.
    """
    result: Response | TransportError | None = None
    with anyio.move_on_after(LONGEST_WAIT) as scope:
        async with anyio.create_task_group() as group:
            if begun is not None:
                group.start_soon(_end_after, begun, scope)
            try:
                result = await transport.send(request)
            except TransportError as error:
                result = error
            group.cancel_scope.cancel()
    if isinstance(result, Response):
        return ANSWERED if (result.status, result.body) == (200, GOOD_BODY) else ODD
    if isinstance(result, TransportError):
        return _checked(result, request)
    return UNSENT if request.delivery.sent is Sent.NEVER else SILENT


async def _end_after(begun: Callable[[], bool], scope: anyio.CancelScope) -> None:
    await until(begun)
    scope.deadline = anyio.current_time() + _PATIENCE


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


def silent(arrived: anyio.Event) -> Script:
    """Return the script of a server that reads what comes first, tells of it, and never answers."""

    async def never(peer: Peer) -> None:
        await peer.receive()
        arrived.set()
        await peer.stay_silent()

    return Script(on_connect=never)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has happened on the other side."""
    with anyio.fail_after(LONGEST_WAIT):
        while not condition():  # noqa: ASYNC110 - it is the end of a socket or of a task.
            await anyio.sleep(0.005)


def _checked(error: TransportError, request: Request) -> str:
    assert type(error).sent is error.sent, f"{error!r} says {error.sent}"
    for text in _texts(error):
        assert KEY not in text, f"{error!r} shows the API key"
    if isinstance(error, ResponseTooLarge):
        return TOO_LARGE
    return UNSENT if Sent.NEVER in (error.sent, request.delivery.sent) else LOST


def _texts(error: BaseException) -> Iterator[str]:
    """Everything a program may print of an error."""
    formatted = traceback.TracebackException.from_exception(error)
    yield "".join(formatted.format())
    one: BaseException | None = error
    while one is not None:
        yield repr(one) + repr(vars(one)) + repr(one.args)
        one = one.__cause__ or one.__context__
