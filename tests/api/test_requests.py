"""What goes out: ids, URLs and headers."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phygitals_async import (
    BadRequest,
    ConfigurationError,
    Destination,
    InvalidArgumentError,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sent,
)
from phygitals_async.version import VERSION
from phygitals_transports import MemoryTransport
from support import empty_inventories

pytestmark = pytest.mark.anyio

KEY = "sandbox-0123456789"


class _Who(enum.StrEnum):
    ALICE = "alice/1"


async def _sent(user_id: str, **settings: Any) -> Request:
    transport = MemoryTransport(empty_inventories)
    async with PhygitalsClient(transport, **{"api_key": KEY, **settings}) as api:
        await api.get_inventory(user_id)
    (request,) = transport.sent
    return request


@pytest.mark.parametrize(
    ("user_id", "rule"),
    [
        (None, "user_id must be a string, not NoneType"),
        (5, "user_id must be a string, not int"),
        (True, "user_id must be a string, not bool"),
        (b"user", "user_id must be a string, not bytes"),
        (["user"], "user_id must be a string, not list"),
        ("", "user_id must not be empty"),
        (".", "user_id must not be '.' or '..': servers and proxies resolve those away"),
        ("..", "user_id must not be '.' or '..': servers and proxies resolve those away"),
        ("\ud800", "user_id holds an unpaired surrogate, which no encoding can carry"),
        ("a\udfffb", "user_id holds an unpaired surrogate, which no encoding can carry"),
    ],
)
async def test_an_id_that_cannot_be_sent_is_refused_before_io(user_id: Any, rule: str) -> None:
    """The error names the rule, the operation and that nothing was sent; nothing was."""
    transport = MemoryTransport(empty_inventories)
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(InvalidArgumentError) as caught:
            await api.get_inventory(user_id)
    error = caught.value
    assert str(error) == f"get_inventory: {rule}"
    assert (error.operation, error.attempts, error.sent) == ("get_inventory", 0, Sent.NEVER)
    assert isinstance(error, ValueError)
    assert transport.sent == []


@example("v1|110586049456|0")
@example("a/b")
@example("/")
@example("//evil.example/x")
@example("../../admin")
@example("...")
@example("%2e%2e")
@example("%2F")
@example("a?b=c&d#e;f")
@example(" ")
@example("\x00\r\n")
@example("{user_id}")
@example("é😀\u202e")
@example("e\u0301")
@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
async def test_any_other_id_becomes_one_segment_that_holds_it_exactly(user_id: str) -> None:
    """The id is one percent-encoded path segment, and the sandbox's `/_` survives."""
    url = (await _sent(user_id)).url
    head, slash, segment = url.rpartition("/")
    assert (head, slash) == ("https://api.phygitals.com/_/api/v1/inventory", "/")
    assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", segment)
    assert segment not in (".", "..")
    assert unquote(segment, errors="strict") == user_id


async def test_a_string_enum_is_its_text() -> None:
    """A `str` subclass goes out as the text it equals."""
    assert (await _sent(_Who.ALICE)).url.endswith("/inventory/alice%2F1")


@pytest.mark.parametrize(
    ("settings", "root"),
    [
        ({}, "https://api.phygitals.com/_/api/v1"),
        ({"api_key": "live-0123"}, "https://api.phygitals.com/api/v1"),
        ({"base_url": "https://gateway.example/a/"}, "https://gateway.example/a/api/v1"),
        ({"base_url": "http://[::1]:8765/_"}, "http://[::1]:8765/_/api/v1"),
        ({"path_prefix": "/api/partner/v1/"}, "https://api.phygitals.com/_/api/partner/v1"),
        ({"path_prefix": ""}, "https://api.phygitals.com/_"),
        (
            {"base_url": "https://gateway.example/%7Buser_id%7D", "path_prefix": ""},
            "https://gateway.example/%7Buser_id%7D",
        ),
        ({"base_url": "https://gateway.example/{user_id}", "path_prefix": ""}, "https://gateway.example/{user_id}"),
    ],
)
async def test_the_url_is_appended_together(settings: dict[str, Any], root: str) -> None:
    """Base URL, prefix, path and id stand one behind the other, unchanged."""
    assert (await _sent("user_abc123", **settings)).url == f"{root}/inventory/user_abc123"


async def test_the_request_is_a_bare_get_with_the_key() -> None:
    """Nothing more is sent than the documents ask for."""
    request = await _sent("user_abc123")
    assert (request.method, request.body) == ("GET", None)
    assert dict(request.headers) == {
        "X-API-Key": KEY,
        "Accept": "application/json",
        "User-Agent": f"phygitals-async/{VERSION}",
    }


async def test_a_transport_that_changes_the_headers_changes_one_request_only() -> None:
    """Each request has headers of its own."""

    def tamper(request: Request) -> Response:
        assert isinstance(request.headers, dict)
        request.headers.clear()
        return empty_inventories(request)

    transport = MemoryTransport(tamper)
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.get_inventory("a")
        await api.get_inventory("b")
    first, second = transport.sent
    assert first.headers is not second.headers


async def test_nothing_that_is_printed_of_a_request_shows_the_key() -> None:
    """Neither the request's repr nor that of its headers shows the key, which is sent all the same."""
    request = await _sent("user_abc123")
    response = Response(200, {"set-cookie": "secret"}, b"secret")
    assert KEY not in f"{request!r} {request.headers!r} {attrs.asdict(request)!r}"
    assert request.headers["X-API-Key"] == KEY
    assert "secret" not in repr(response)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), True, "1"])
async def test_a_bad_deadline_of_a_call_is_refused_before_io(deadline: Any) -> None:
    """A call's own deadline is checked like the client's."""
    transport = MemoryTransport(empty_inventories)
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(ConfigurationError) as caught:
            await api.get_inventory("user_abc123", deadline=deadline)
    assert (caught.value.operation, caught.value.attempts) == ("get_inventory", 0)
    assert transport.sent == []


# The other operations: query strings and bodies


def _refuse(_: Request) -> Response:
    return Response(400, {}, b"")


_DESTINATION = Destination(name='Jane "J" Doe', line1="Straße 1", city="Köln", country="DE")


@pytest.mark.parametrize(
    ("call", "method", "target", "body"),
    [
        (lambda api: api.list_packs(), "GET", "/vm/available", None),
        (lambda api: api.list_packs(platform="a b&c"), "GET", "/vm/available?platform=a%20b%26c", None),
        (
            lambda api: api.list_packs(platform="x", include_repacks=True),
            "GET",
            "/vm/available?platform=x&includeRepacks=true",
            None,
        ),
        (lambda api: api.list_packs(include_repacks=False), "GET", "/vm/available?includeRepacks=false", None),
        (lambda api: api.list_chase_cards("a/b?c"), "GET", "/vm/chase/a%2Fb%3Fc", None),
        (lambda api: api.list_recent_pulls(), "GET", "/vm/recent-pulls", None),
        (
            lambda api: api.list_recent_pulls(claw_ids=iter(["A", "B&limit=5"]), limit=100),
            "GET",
            "/vm/recent-pulls?claw_ids=A&claw_ids=B%26limit%3D5&limit=100",
            None,
        ),
        (lambda api: api.get_card("v1|110586049456|0"), "GET", "/card/v1%7C110586049456%7C0", None),
        (
            lambda api: api.start_purchase("p", 3, "u/1"),
            "POST",
            "/vm/buy/init",
            {"id": "p", "amount": 3, "user_id": "u/1"},
        ),
        (lambda api: api.get_purchase("s"), "POST", "/vm/buy/status", {"session_id": "s"}),
        (lambda api: api.sell_back("v1|1|0"), "POST", "/vm/buyback", {"item_id": "v1|1|0"}),
        (
            lambda api: api.quote_shipping(["a", "b"], _DESTINATION),
            "POST",
            "/ship/quote",
            {
                "item_ids": ["a", "b"],
                "destination": {"name": 'Jane "J" Doe', "line1": "Straße 1", "city": "Köln", "country": "DE"},
            },
        ),
        (lambda api: api.request_shipping("q_rate_1"), "POST", "/ship/request", {"quote_id": "q_rate_1"}),
        (lambda api: api.get_shipping_order("o/../1"), "GET", "/ship/order/o%2F..%2F1", None),
    ],
)
async def test_each_operation_is_sent_as_documented(
    call: Callable[[PhygitalsClient], Awaitable[object]], method: str, target: str, body: object
) -> None:
    """Method, path, query and body are those of the documents, and a body is labelled as JSON."""
    transport = MemoryTransport(_refuse)
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(BadRequest):
            await call(api)
    (request,) = transport.sent
    assert (request.method, request.url) == (method, f"https://api.phygitals.com/_/api/v1{target}")
    assert (None if request.body is None else json.loads(request.body)) == body
    assert request.headers.get("Content-Type") == (None if body is None else "application/json")
    assert request.headers["X-API-Key"] == KEY


@pytest.mark.parametrize("make", [lambda: PhygitalsClient(api_key=KEY, deadline=0), lambda: PhygitalsClient()])
def test_a_client_that_could_not_call_is_not_made(make: Callable[[], PhygitalsClient]) -> None:
    """The client's own settings are checked at once, not on the first call."""
    with pytest.raises(PhygitalsError):
        make()
