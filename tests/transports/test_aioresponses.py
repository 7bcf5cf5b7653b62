"""The client under aioresponses, the way many host applications already mock aiohttp.

aioresponses re-quotes URLs and makes its own responses, so these tests stay narrow; what goes over the wire is
tested over real sockets in `test_aiohttp.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from yarl import URL

from phygitals_async import (
    AuthenticationError,
    ConnectionLost,
    DecodeError,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    RateLimited,
    RedirectRefused,
    Sent,
    ServerError,
    UserNotFound,
)
from support import ONCE, fixture_bytes

KEY = "sandbox-test"
URL_OF_USER = "https://api.phygitals.com/_/api/v1/inventory/user_abc123"


class FakeResponse(aiohttp.ClientResponse):
    """What aioresponses 0.7.9 lacks for aiohttp 3.14: the argument `stream_writer`, which it does not pass."""

    def __init__(self, *args: Any, stream_writer: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=stream_writer or Mock(output_size=0), **kwargs)


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """Give aioresponses, patched in."""
    with aioresponses() as mock:
        yield mock


async def outcome(user_id: str = "user_abc123") -> PhygitalsError:
    """Make the call and return its error."""
    async with PhygitalsClient(api_key=KEY, retry=ONCE) as api:
        with pytest.raises(PhygitalsError) as caught:
            await api.get_inventory(user_id)
    return caught.value


@pytest.mark.asyncio
async def test_documented_inventory(mocked: aioresponses) -> None:
    """The documented payload becomes an Inventory; the call carries the key and follows no redirect."""
    mocked.get(URL_OF_USER, body=fixture_bytes("inventory.json"), response_class=FakeResponse)
    async with PhygitalsClient(api_key=KEY, retry=ONCE) as api:
        inventory = await api.get_inventory("user_abc123")
    assert inventory.user_id == "user_abc123"
    assert [item.name for item in inventory.items] == ["Juan Soto RC Auto /25"]
    ((call,),) = mocked.requests.values()
    assert list(mocked.requests) == [("GET", URL(URL_OF_USER))]
    assert call.kwargs["headers"]["X-API-Key"] == KEY
    assert call.kwargs["allow_redirects"] is False
    assert call.kwargs["data"] is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (401, '{"error":"Invalid API key"}', AuthenticationError, "Invalid API key"),
        (403, "<html>cf</html>", PermissionDenied, ""),
        (404, '{"error":"User not found"}', UserNotFound, "User not found"),
        (500, '{"error":"An unexpected error occurred"}', ServerError, "An unexpected error occurred"),
        (520, "", ServerError, ""),
    ],
)
async def test_refusals(
    mocked: aioresponses, status: int, body: str, expected: type[PhygitalsError], message: str
) -> None:
    """A status becomes the error of its kind."""
    mocked.get(URL_OF_USER, status=status, body=body, response_class=FakeResponse, repeat=True)
    error = await outcome()
    assert type(error) is expected
    assert getattr(error, "status", None) == status
    assert getattr(error, "message", None) == message


@pytest.mark.asyncio
async def test_retry_after(mocked: aioresponses) -> None:
    """A response header is read, whatever its spelling."""
    headers = {"Retry-After": "7"}
    mocked.get(URL_OF_USER, status=429, headers=headers, response_class=FakeResponse, repeat=True)
    error = await outcome()
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7


@pytest.mark.asyncio
async def test_redirect(mocked: aioresponses) -> None:
    """A redirect is refused, and its target not asked."""
    target = "https://elsewhere.example/"
    mocked.get(URL_OF_USER, status=302, headers={"Location": target}, response_class=FakeResponse)
    mocked.get(target, body=fixture_bytes("inventory.json"), response_class=FakeResponse)
    assert type(await outcome()) is RedirectRefused
    assert list(mocked.requests) == [("GET", URL(URL_OF_USER))]


@pytest.mark.asyncio
@pytest.mark.parametrize("body", ["", "<html>", '{"user_id":5,"items":[]}', '{"user_id":"u"}'])
async def test_undocumented_bodies(mocked: aioresponses, body: str) -> None:
    """A 200 that is no inventory is a DecodeError."""
    mocked.get(URL_OF_USER, body=body, response_class=FakeResponse)
    assert type(await outcome()) is DecodeError


@pytest.mark.asyncio
@pytest.mark.parametrize("failure", [aiohttp.ServerDisconnectedError(), ConnectionResetError(104, "reset")])
async def test_connection_failures(mocked: aioresponses, failure: Exception) -> None:
    """An exception of the connection becomes ConnectionLost and is not chained."""
    mocked.get(URL_OF_USER, exception=failure, repeat=True)
    error = await outcome()
    assert type(error) is ConnectionLost
    assert error.sent is Sent.UNKNOWN
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.asyncio
async def test_bulk(mocked: aioresponses) -> None:
    """A bulk run asks once for each user, and every user has an outcome."""

    def answer(url: URL, **_: Any) -> CallbackResult:
        user_id = url.name
        if user_id == "u3":
            return CallbackResult(status=404, payload={"error": "User not found"}, response_class=FakeResponse)
        return CallbackResult(payload={"user_id": user_id, "items": []}, response_class=FakeResponse)

    base = "https://api.phygitals.com/_/api/v1/inventory"
    for number in range(5):
        mocked.get(f"{base}/u{number}", callback=answer)
    async with PhygitalsClient(api_key=KEY, retry=ONCE) as api:
        batch = await api.get_inventories([f"u{number}" for number in range(5)], limit=2)
    assert [found.value.user_id for found in batch.found] == ["u0", "u1", "u2", "u4"]
    assert [(failed.key, type(failed.error)) for failed in batch.failed] == [("u3", UserNotFound)]
    assert all(len(calls) == 1 for calls in mocked.requests.values())
    assert len(mocked.requests) == 5
