"""What is known of a call that moves money or goods stays what it is, and only what never left is made again."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Final

import pytest

from money_support import (
    BY_OPERATION,
    CONVERTER,
    EAGER,
    HTML,
    KEY,
    PATHS,
    USER,
    assert_performed,
    error_of,
    framed,
    prepare,
    prepared_elsewhere,
    running_server,
)
from phygitals_async import (
    AuthenticationError,
    BadRequest,
    ClientClosed,
    ConnectError,
    ConnectionLost,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PhygitalsClient,
    RateLimited,
    RedirectRefused,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    Sellback,
    SellbackInProgress,
    Sent,
    StatusError,
)
from phygitals_async.conformance.server import free_port
from phygitals_transports import AiohttpTransport, MemoryTransport
from support import ONCE

# What is known


REFUSED: Final = [
    (400, b'{"error": "Something new"}', BadRequest),
    (401, b'{"error": "Invalid API key"}', AuthenticationError),
    (403, HTML, PermissionDenied),
    (404, HTML, NotFound),
    (409, b"", BadRequest),
    (413, b"", BadRequest),
    (422, b"", BadRequest),
    (429, HTML, RateLimited),
    (499, b"", BadRequest),
]


@BY_OPERATION
@pytest.mark.parametrize(("status", "body", "expected"), REFUSED, ids=[str(row[0]) for row in REFUSED])
@pytest.mark.asyncio
async def test_a_refusal_is_known_and_stays_what_it_is(
    operation: str, status: int, body: bytes, expected: type[StatusError]
) -> None:
    """A 4xx says that nothing was done, and is not repeated, a 429 included; that of a sellback is a lock."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        server.instead = framed(status, body, Retry_After="0")
        error = await error_of(prepared.make(api))
        is_lock = (operation, status) == ("sell_back", 429)
        assert type(error) is (SellbackInProgress if is_lock else expected)
        assert (error.operation, error.arguments, error.attempts) == (operation, prepared.arguments, 1)
        assert error.sent is Sent.YES
        assert server.received.count(PATHS[operation]) == 1


@pytest.mark.asyncio
async def test_the_lock_on_an_item_is_not_repeated_unasked() -> None:
    """The documented 429 of a sellback is the caller's to repeat; the repetition then is one request more."""
    async with running_server() as (server, api):
        prepared = await prepare("sell_back", server.sandbox, api)
        server.sandbox.options.lock_sellbacks = 1
        error = await error_of(prepared.make(api))
        assert type(error) is SellbackInProgress
        assert error.attempts == 1
        assert server.received.count(PATHS["sell_back"]) == 1
        assert await prepared.make(api) == Sellback(success=True, amount=Decimal("8.5"))


@BY_OPERATION
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.asyncio
async def test_a_redirect_is_refused_and_not_followed(operation: str, status: int) -> None:
    """A redirect is followed nowhere, neither with the method nor as a GET."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        server.instead = framed(status, b"", Location=f"{server.url}/elsewhere")
        error = await error_of(prepared.make(api))
        assert (error.operation, error.attempts, error.sent) == (operation, 1, Sent.YES)
        if status not in (301, 307, 308):
            # These may be what a server says once it has acted.
            assert isinstance(error, OutcomeUnknown)
        refused = error.__cause__ if isinstance(error, OutcomeUnknown) else error
        assert isinstance(refused, RedirectRefused)
        assert refused.status == status
        assert server.received.count(PATHS[operation]) == 1
        assert not [path for path in server.received if "elsewhere" in path]


@BY_OPERATION
@pytest.mark.parametrize(("retry", "attempts"), [(ONCE, 1), (EAGER, 11)], ids=["once", "eager"])
@pytest.mark.asyncio
async def test_a_refused_connection_was_never_sent(operation: str, retry: RetryPolicy, attempts: int) -> None:
    """It is certain that nothing happened, so it stays a `ConnectError`, and may be tried again."""
    prepared = await prepared_elsewhere(operation)
    url = f"http://127.0.0.1:{free_port()}"
    async with PhygitalsClient(AiohttpTransport(), api_key=KEY, retry=retry, base_url=url) as api:
        error = await error_of(prepared.make(api))
    assert type(error) is ConnectError
    assert (error.operation, error.arguments, error.attempts) == (operation, prepared.arguments, attempts)
    assert error.sent is Sent.NEVER
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (type(again), vars(again)) == (ConnectError, vars(error))


@BY_OPERATION
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
@pytest.mark.anyio
async def test_a_repeat_of_what_was_never_sent_is_the_only_one(operation: str, lost: bool) -> None:
    """Once a try may have left, no other follows, however many never did before it."""
    sandbox = Sandbox(seed=3)
    tries = 0

    def handler(request: Request) -> Response:
        nonlocal tries
        if request.url.endswith(PATHS[operation]):
            tries += 1
            if tries <= 2:
                raise ConnectError("refused")
            true = sandbox(request)
            if lost:
                raise ConnectionLost("lost")
            return true
        return sandbox(request)

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)
        before = await api.get_inventory(USER)
        if lost:
            error = await error_of(prepared.make(api))
            assert type(error) is OutcomeUnknown
            assert (error.attempts, error.sent) == (3, Sent.UNKNOWN)
        else:
            await prepared.make(api)
        assert tries == 3
        assert_performed(operation, prepared, before, await api.get_inventory(USER))


@BY_OPERATION
@pytest.mark.anyio
async def test_a_closed_client_sends_nothing(operation: str) -> None:
    """It is certain that nothing happened, so it stays `ClientClosed`."""
    sandbox = Sandbox(seed=3)
    transport = MemoryTransport(sandbox)
    api = PhygitalsClient(transport, api_key=KEY, retry=ONCE)
    prepared = await prepare(operation, sandbox, api)
    sent = len(transport.sent)
    await api.aclose()
    error = await error_of(prepared.make(api))
    assert type(error) is ClientClosed
    assert (error.attempts, error.sent) == (0, Sent.NEVER)
    assert len(transport.sent) == sent
