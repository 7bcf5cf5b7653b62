"""What the tests of refusals share."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest

from phygitals_async import (
    AuthenticationError,
    BadRequest,
    Destination,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    RateLimited,
    Response,
    Sent,
    ServerError,
    StatusError,
    build_converter,
)
from phygitals_transports import MemoryTransport
from support import ONCE

KEY = "sandbox-0123456789"
# Thousands of clients are made here; building a converter is most of the work of making one.
CONVERTER = build_converter()
DESTINATION: Final = Destination(
    name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US", phone="+1", email="j@x.com"
)

Call = Callable[[PhygitalsClient], Awaitable[Any]]

# A call of each operation, by its method and path in the documents.
CALLS: Final[Mapping[str, Call]] = {
    "GET /api/v1/vm/available": lambda api: api.list_packs(),
    "GET /api/v1/vm/chase/:slug": lambda api: api.list_chase_cards("slug"),
    "GET /api/v1/vm/recent-pulls": lambda api: api.list_recent_pulls(),
    "GET /api/v1/card/:item_id": lambda api: api.get_card("a"),
    "POST /api/v1/vm/buy/init": lambda api: api.start_purchase("pack", 2, "user"),
    "POST /api/v1/vm/buy/status": lambda api: api.get_purchase("session"),
    "GET /api/v1/inventory/:user_id": lambda api: api.get_inventory("user"),
    "POST /api/v1/vm/buyback": lambda api: api.sell_back("a"),
    "POST /api/v1/ship/quote": lambda api: api.quote_shipping(["a"], DESTINATION),
    "POST /api/v1/ship/request": lambda api: api.request_shipping("quote_1_rate_priority"),
    "GET /api/v1/ship/order/:order_id": lambda api: api.get_shipping_order("order"),
}
MOVING: Final = ("POST /api/v1/vm/buy/init", "POST /api/v1/vm/buyback", "POST /api/v1/ship/request")
FAMILIES: Final[Mapping[int, type[StatusError]]] = {
    400: BadRequest, 401: AuthenticationError, 403: PermissionDenied, 404: NotFound, 409: BadRequest,
    422: BadRequest, 429: RateLimited, 500: ServerError, 503: ServerError, 520: ServerError,
}  # fmt: skip


async def error_of(call: Call, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> PhygitalsError:
    """Make a call that is answered so; return the error, which was raised after one request."""
    transport = MemoryTransport(lambda _: Response(status, dict(headers or {}), body))
    async with PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        with pytest.raises(PhygitalsError) as caught:
            await call(api)
    assert len(transport.sent) == 1
    assert caught.value.attempts == 1
    assert_pickles(caught.value)
    return caught.value


async def refused(endpoint: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> StatusError:
    """Return the refusal in an answer, or the one behind an `OutcomeUnknown`."""
    error = await error_of(CALLS[endpoint], status, body, headers)
    cause = error.__cause__ if isinstance(error, OutcomeUnknown) else error
    assert isinstance(cause, StatusError)
    assert isinstance(error, OutcomeUnknown) == (endpoint in MOVING and type(cause) in (ServerError, StatusError))
    assert (cause.sent, error.sent) == (Sent.YES, Sent.YES)
    return cause


def assert_pickles(error: PhygitalsError) -> None:
    """Assert that an error that crosses a process boundary is the same error."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
