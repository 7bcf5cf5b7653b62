"""What transports around transports are made of."""

from __future__ import annotations

import html
import json
import pickle
from urllib.parse import quote

import pytest

from phygitals_async import ConnectionLost, Destination, PhygitalsClient, PhygitalsError, Request, Response, Sent
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async.wrapping import METHODS, Wrapper, api_key_of, before_sending, mask, operation_of
from phygitals_transports import MemoryTransport
from wrapper_support import KEY, get, json_answer, post

AWKWARD = ["user", "a/b", "v1|1|0", "?", "vm/available", "%2F", "é", "available"]


@pytest.mark.anyio
@pytest.mark.parametrize("base_url", [None, "http://127.0.0.1:8765/_", "http://localhost/inventory/card"])
@pytest.mark.parametrize("path_prefix", ["/api/v1", "/api/partner/v1", ""])
async def test_each_request_of_the_client_is_known_by_its_name(base_url: str | None, path_prefix: str) -> None:
    """Whatever the base URL, the path prefix and the ids are."""
    transport = MemoryTransport.answering((404, {"error": "no"}))
    home = Destination(name="Jane", line1="1 Main St", city="Austin", country="US")
    asked: list[str] = []
    async with PhygitalsClient(transport, api_key=KEY, base_url=base_url, path_prefix=path_prefix) as api:
        for text in AWKWARD:
            calls = {
                "list_packs": api.list_packs(platform=text, include_repacks=True),
                "list_chase_cards": api.list_chase_cards(text),
                "list_recent_pulls": api.list_recent_pulls(claw_ids=[text], limit=5),
                "get_card": api.get_card(text),
                "start_purchase": api.start_purchase(text, 1, text),
                "get_purchase": api.get_purchase(text),
                "get_inventory": api.get_inventory(text),
                "sell_back": api.sell_back(text),
                "quote_shipping": api.quote_shipping([text], home),
                "request_shipping": api.request_shipping(text),
                "get_shipping_order": api.get_shipping_order(text),
            }
            for name, call in calls.items():
                with pytest.raises(PhygitalsError):
                    await call
                asked.append(name)
    assert [operation_of(request) for request in transport.sent] == asked
    assert [METHODS[name] for name in asked] == [request.method for request in transport.sent]
    assert set(asked) == set(METHODS) == {operation.name for operation in OPERATIONS}


@pytest.mark.parametrize(
    "request_",
    [
        get("/x"),
        get("/inventory"),
        get("/inventory/"),
        get("/inventory/a/b"),
        post("/inventory/a"),
        get("/vm/buyback"),
        get("/vm/availables"),
        get("/x?y=/vm/available"),
    ],
)
def test_a_request_that_no_client_makes(request_: Request) -> None:
    """It has no name."""
    assert operation_of(request_) is None


@pytest.mark.parametrize("name", ["X-API-Key", "x-api-key", "X-Api-Key"])
def test_the_key_of_a_request(name: str) -> None:
    """It is found in any spelling of the header, and does not show."""
    key = api_key_of(Request("GET", "http://127.0.0.1/x", {"Accept": "*/*", name: KEY}))
    assert key == KEY
    assert KEY not in repr(key)
    assert KEY.encode() not in pickle.dumps(key)
    assert api_key_of(Request("GET", "http://127.0.0.1/x", {})) == ""


AN_AWKWARD_KEY = 'sandbox-a/b+c="d\\e&<~>'


@pytest.mark.parametrize("key", [KEY, AN_AWKWARD_KEY], ids=["plain", "awkward"])
@pytest.mark.parametrize(
    "written",
    [
        lambda key: key,
        json.dumps,
        lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
        lambda key: json.dumps(key).replace("/", "\\/"),
        html.escape,
        lambda key: "".join(f"&#x{ord(c):x};" for c in key),
        lambda key: quote(key, safe=""),
        lambda key: "".join(f"%{ord(c):02x}" for c in key),
        lambda key: json.dumps(json.dumps(json.dumps(key))),
        lambda key: json.dumps(html.escape(key)).replace("&", "\\u0026"),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: json.dumps("".join(f"\\u{ord(c):04x}" for c in key)),
    ],
    ids=lambda written: "",
)
def test_a_text_without_the_key(key: str, written: object) -> None:
    """However the key is written in it, it cannot be read any more; what has no key is left alone."""
    assert callable(written)
    text = f"<a>{written(key)}</a> & a\\b %41"
    masked = mask(get("/x", key), text)
    assert masked != text
    shown = {masked}
    for _ in range(4):
        shown |= {form for one in shown for form in (html.unescape(one), one.replace("\\", ""))}
    assert not any(key in form for form in shown)
    assert mask(get("/x", "sandbox-other"), text) == text
    assert mask(get("/x", ""), text) == text


@pytest.mark.anyio
async def test_the_part_of_a_wrapper_that_is_always_the_same() -> None:
    """It closes the inner transport, and says whether that holds anything open."""

    class Passing(Wrapper):
        async def send(self, request: Request) -> Response:
            return await self._inner.send(request)

    class Open(MemoryTransport):
        is_open = True

    inner = MemoryTransport.answering(json_answer())
    passing = Passing(inner)
    assert (await passing.send(get("/x"))).status == 200
    assert (passing.is_open, Passing(Passing(Open(lambda _: json_answer()))).is_open) == (False, True)
    await passing.aclose()
    with pytest.raises(PhygitalsError, match="closed"):
        await inner.send(get("/x"))


def test_what_fails_before_the_request_is_handed_on() -> None:
    """It was never sent; what goes well says nothing."""
    request = get("/x")
    with before_sending(request):
        pass
    assert (request.delivery.started, request.delivery.failed) == (False, False)
    with pytest.raises(ConnectionLost), before_sending(request):
        raise ConnectionLost
    assert request.delivery.sent is Sent.NEVER
