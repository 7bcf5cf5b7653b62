"""The sandbox over HTTP, met by clients that are not this library: in any language, careful or not."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from phygitals_async import Request, Response, Sandbox
from phygitals_transports.aiohttp_server import serve

NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
JSON: Final = "application/json; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
KEY: Final = {"X-API-Key": "sandbox-any"}
POSTS: Final = ("/vm/buy/init", "/vm/buy/status", "/vm/buyback", "/ship/quote", "/ship/request")
# What each answers to a body that says nothing.
SAYS_NOTHING: Final = {
    "/vm/buy/init": (400, {"error": "user_id is required"}),
    "/vm/buy/status": (400, {"error": "Transaction failed"}),
    "/vm/buyback": (400, {"error": "Item not found"}),
    "/ship/quote": (400, {"error": "item_ids is required"}),
    "/ship/request": (400, {"error": "quote_id is required"}),
}


@pytest.fixture
def sandbox() -> Sandbox:
    """Return a sandbox whose time stands still."""
    return Sandbox(clock=lambda: NOW, seed=1)


@pytest_asyncio.fixture
async def url(sandbox: Sandbox) -> AsyncIterator[str]:
    """Serve the sandbox and give its base URL."""
    async with serve(sandbox) as base:
        yield base


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client that knows nothing of the API but its key."""
    async with aiohttp.ClientSession(headers=KEY, timeout=aiohttp.ClientTimeout(30)) as client:
        yield client


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, body: object = None, **options: Any
) -> tuple[int, str, Any]:
    """Make a request and return the status, the content type, and the JSON of the answer, or else its text."""
    if body is not None:
        options["json"] = body
    async with session.request(method, url, **options) as answer:
        content_type = answer.headers["Content-Type"]
        text = await answer.text()
        return answer.status, content_type, json.loads(text) if content_type == JSON else text


async def refused(call: Awaitable[tuple[int, str, Any]], status: int, error: str) -> None:
    """Expect a refusal with one sentence."""
    assert await call == (status, JSON, {"error": error})


@pytest.mark.parametrize("prefix", ["/api/v1", "/_/api/v1"])
@pytest.mark.asyncio
async def test_a_whole_life_cycle(session: aiohttp.ClientSession, url: str, sandbox: Sandbox, prefix: str) -> None:
    """Buy, poll, look, sell, quote, ship and follow, with the refusals on the way, as the documents write them."""
    root = url + prefix

    async def get(path: str) -> Any:
        status, content_type, answer = await ask(session, "GET", root + path)
        assert (status, content_type) == (200, JSON), answer
        return answer

    async def post(path: str, body: object) -> Any:
        status, content_type, answer = await ask(session, "POST", root + path, body)
        assert (status, content_type) == (200, JSON), answer
        return answer

    packs = await get("/vm/available?platform=mainnet&includeRepacks=false")
    assert [pack["in_stock"] for pack in packs] == [True, True, False]
    pack = packs[1]
    assert pack["mint_price"] == 25
    chase = await get(f"/vm/chase/{pack['slug']}")
    assert [card["fmv"] for card in chase] == sorted((card["fmv"] for card in chase), reverse=True)
    await refused(ask(session, "GET", f"{root}/inventory/jane%2Fdoe"), 404, "User not found")

    started = await post("/vm/buy/init", {"id": pack["id"], "amount": 3, "user_id": "jane/doe"})
    sold, shipped, kept = [item["id"] for item in started["nfts"]]
    result = (await post("/vm/buy/status", {"session_id": started["session_id"]}))["result"]
    assert (result["session_id"], result["user_id"]) == (started["session_id"], "jane/doe")
    assert result["nfts"] == started["nfts"]
    inventory = await get("/inventory/jane%2Fdoe")
    assert inventory["user_id"] == "jane/doe"
    assert [item["id"] for item in inventory["items"]] == [sold, shipped, kept]
    assert inventory["items"][0]["purchased_at"] == "2026-04-18T19:05:14.000Z"
    assert inventory["items"][0]["buyback_expires_at"] == "2026-04-25T19:05:14.000Z"
    pulls = await get(f"/vm/recent-pulls?claw_ids={pack['id']}&claw_ids=other&limit=2")
    assert [pull["id"] for pull in pulls] == [kept, shipped]
    # An eBay listing's id holds bars, which are encoded in a path.
    assert "|" in sold
    card = await get(f"/card/{quote(sold, safe='')}")
    assert card["metadata"] == started["nfts"][0]["content"]["metadata"]

    assert await post("/vm/buyback", {"item_id": sold}) == {
        "success": True,
        "amount": started["nfts"][0]["buyback_price"],
    }
    await refused(ask(session, "POST", f"{root}/vm/buyback", {"item_id": sold}), 400, "Item not found")

    destination = {"name": "Jane Doe", "line1": "123 Main St", "zip": "78701", "country": "US"}
    quotes = await post("/ship/quote", {"item_ids": [shipped], "destination": destination})
    assert quotes["expires_at"] == "2026-04-18T19:20:14.000Z"
    chosen = {"quote_id": quotes["quotes"][1]["id"]}
    order = await post("/ship/request", chosen)
    assert order == {"order_id": order["order_id"], "status": "success"}
    await refused(ask(session, "POST", f"{root}/ship/request", chosen), 400, "Item already shipped")
    shown = await get(f"/ship/order/{order['order_id']}")
    assert (shown["status"], shown["destination"], shown["amount"]) == ("queued", destination, 9.75)
    assert [item["item_id"] for item in shown["items"]] == [shipped]
    assert [item["id"] for item in (await get("/inventory/jane%2Fdoe"))["items"]] == [kept]

    sandbox.wipe()
    await refused(ask(session, "GET", f"{root}/inventory/jane%2Fdoe"), 404, "User not found")
    await refused(ask(session, "GET", f"{root}/ship/order/{order['order_id']}"), 404, "Order not found")


# ---------------------------------------------------------------------------------------------------------
# Bodies


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "content",
    [
        b"{", b'{"item_id": }', b"{'a': 1}", b"\xff\xfe", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"NaN", b"nope",
        b'{"a": 1} {"b": 2}', b"[" * 20_000, b'{"a":' * 20_000, b'{"a": 1e999}', b"   ",
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
@pytest.mark.asyncio
async def test_bodies_that_are_no_json(session: aiohttp.ClientSession, url: str, path: str, content: bytes) -> None:
    """What says it is JSON and is not gets a 400 in JSON."""
    headers = {"Content-Type": "application/json"}
    await refused(ask(session, "POST", f"{url}/_/api/v1{path}", data=content, headers=headers), 400, "Invalid JSON")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("content", [b"null", b"[]", b'["a"]', b'"text"', b"5", b"true", b"{}", b' {"other": 1} '])
@pytest.mark.asyncio
async def test_json_that_says_nothing(session: aiohttp.ClientSession, url: str, path: str, content: bytes) -> None:
    """JSON that is no object, or has none of the fields, counts as one whose fields are missing."""
    status, error = SAYS_NOTHING[path]
    headers = {"Content-Type": "application/json"}
    answer = await ask(session, "POST", f"{url}/_/api/v1{path}", data=content, headers=headers)
    assert answer == (status, JSON, error)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"]
)
@pytest.mark.asyncio
async def test_bodies_of_other_types(
    session: aiohttp.ClientSession, url: str, path: str, content_type: str | None
) -> None:
    """A body that does not say it is JSON is not read, whatever it holds."""
    skipped = {"Content-Type"} if content_type is None else set()
    headers = {} if content_type is None else {"Content-Type": content_type}
    full = {"id": "x", "user_id": "u", "item_id": "x", "session_id": "x", "item_ids": ["x"], "quote_id": "a_rate_b"}
    for content in (json.dumps(full).encode(), b"{"):
        options: dict[str, Any] = {"data": content, "headers": headers, "skip_auto_headers": skipped}
        status, kind, answer = await ask(session, "POST", f"{url}/_/api/v1{path}", **options)
        assert ((status, answer), kind) == (SAYS_NOTHING[path], JSON)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;a=b"],
)
@pytest.mark.asyncio
async def test_spellings_of_the_type(
    session: aiohttp.ClientSession, url: str, sandbox: Sandbox, content_type: str
) -> None:
    """Case, spaces and parameters of the content type make no difference."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
    headers = {"Content-Type": content_type}
    content = json.dumps({"item_id": item.id}).encode()
    answer = await ask(session, "POST", f"{url}/api/v1/vm/buyback", data=content, headers=headers)
    assert answer == (200, JSON, {"success": True, "amount": 8.5})


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.asyncio
async def test_empty_bodies(session: aiohttp.ClientSession, url: str, path: str) -> None:
    """An empty body is one whose fields are missing, with a content type and without."""
    for options in ({}, {"data": b"", "headers": {"Content-Type": "application/json"}}):
        status, content_type, answer = await ask(session, "POST", f"{url}/_/api/v1{path}", **options)
        assert ((status, answer), content_type) == (SAYS_NOTHING[path], JSON)


@pytest.mark.asyncio
async def test_huge_bodies(session: aiohttp.ClientSession, url: str) -> None:
    """Half a megabyte is read; what is much larger is refused, and the server lives on."""
    for size, expected in ((500_000, {400}), (20_000_000, {400, 413})):
        body = {"item_ids": ["x" * size], "destination": {"country": "US"}}
        content = io.BytesIO(json.dumps(body).encode())
        headers = {"Content-Type": "application/json"}
        status, _, _ = await ask(session, "POST", f"{url}/_/api/v1/ship/quote", data=content, headers=headers)
        assert status in expected
    status, content_type, _ = await ask(session, "GET", f"{url}/_/api/v1/vm/available")
    assert (status, content_type) == (200, JSON)


@pytest.mark.asyncio
async def test_bodies_in_chunks(session: aiohttp.ClientSession, url: str, sandbox: Sandbox) -> None:
    """A body without a length, in pieces, is the same body."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps({"item_id": item.id}).encode():
            yield bytes([byte])

    headers = {"Content-Type": "application/json"}
    answer = await ask(session, "POST", f"{url}/_/api/v1/vm/buyback", data=pieces(), headers=headers)
    assert answer == (200, JSON, {"success": True, "amount": 1})


@pytest.mark.asyncio
async def test_a_get_with_a_body(session: aiohttp.ClientSession, url: str, sandbox: Sandbox) -> None:
    """A body where none belongs makes no difference."""
    sandbox.add_user("user")
    status, _, answer = await ask(session, "GET", f"{url}/_/api/v1/inventory/user", {"user_id": "other"})
    assert (status, answer) == (200, {"user_id": "user", "items": []})


# ---------------------------------------------------------------------------------------------------------
# Routes, methods and keys


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/v1", "/api/v1/", "/_/api/v1/", "/api/v2/vm/available", "/__/api/v1/vm/available",
        "/_/_/api/v1/vm/available", "/vm/available", "/_/api/v1/vm", "/_/api/v1/inventory/", "/_/api/v1/inventory/a/b",
        "/_/api/v1/vm/availablee", "/_/API/v1/vm/available", "/_/api/v1/ship/order/", "/_/api/v1/users",
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_unknown_routes(session: aiohttp.ClientSession, url: str, path: str) -> None:
    """A route that does not exist answers with a 404 that is no JSON."""
    status, content_type, text = await ask(session, "GET", url + path)
    assert (status, content_type) == (404, HTML)
    assert f"Cannot GET {path}" in text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "POST", "GET", "HEAD"])
@pytest.mark.asyncio
async def test_other_methods(session: aiohttp.ClientSession, url: str, method: str) -> None:
    """An operation has one method; any other is no route, and does nothing."""
    path = "/vm/buy/init" if method == "GET" else "/inventory/user"
    status, content_type, _ = await ask(session, method, f"{url}/_/api/v1{path}")
    assert (status, content_type) == (404, HTML)


@pytest.mark.parametrize("key", [None, "", "wrong", "Sandbox-1", " "])
@pytest.mark.asyncio
async def test_keys_over_http(url: str, key: str | None) -> None:
    """Without a key of the sandbox, every path answers alike."""
    headers = {} if key is None else {"X-API-Key": key}
    async with aiohttp.ClientSession(headers=headers) as stranger:
        for method, path in (("GET", "/_/api/v1/vm/available"), ("POST", "/api/v1/vm/buyback"), ("GET", "/nowhere")):
            await refused(ask(stranger, method, url + path), 401, "Invalid API key")


@pytest.mark.asyncio
async def test_ids_arrive_intact(session: aiohttp.ClientSession, url: str, sandbox: Sandbox) -> None:
    """Every character of an id survives its way through a path."""
    for user_id in (
        "a/b",
        "v1|1|0",
        "100%",
        "a b+c",
        "?x=1&y#z",
        "é\u2028日本",
        "%2F",
        "..%2f",
        "a\\b",
        "\x00\n",
        "~!*'();:@=$,",
    ):
        sandbox.add_user(user_id)
        # The request target is sent as it stands.
        target = URL(f"{url}/_/api/v1/inventory/{quote(user_id, safe='')}", encoded=True)
        async with session.get(target) as answer:
            assert await answer.json() == {"user_id": user_id, "items": []}


async def exchange(url: str, content: bytes) -> bytes:
    """Send bytes to a server, and return all that comes back."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(content)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/_/api/v1/vm/available", "["),
        ("/_/api/v1/vm/available", "[::1"),
        ("/_/api/v1/vm/available", "a/b?c#d"),
        ("/_/api/v1/vm/available", ""),
        ("http://[/_/api/v1/vm/available", "localhost"),
        ("http://other.example/_/api/v1/vm/available", "localhost"),
        ("//_/api/v1/vm/available", "localhost"),
        ("//[/api/v1/vm/available", "localhost"),
        ("/_/api/v1/card/%", "localhost"),
        ("/_/api/v1/card/%zz%ff", "localhost"),
        ("/_/api/v1/vm/recent-pulls?limit=%ff&claw_ids=%00&&=&;", "localhost"),
        ("*", "localhost"),
    ],
)
@pytest.mark.asyncio
async def test_odd_requests_break_nothing(url: str, target: str, host: str) -> None:
    """A request that no well-behaved client sends gets an answer, and never that of a broken server."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: sandbox-1\r\nConnection: close\r\n\r\n"
    answer = await exchange(url, head.encode())
    assert re.match(rb"HTTP/1\.[01] (200|4\d\d) ", answer), answer[:200]


@pytest.mark.parametrize(
    "target", ["//_/api/v1/vm/available", "//host/api/v1/vm/available", "/%5F/api/v1/vm/available"]
)
@pytest.mark.asyncio
async def test_a_target_is_a_path(url: str, target: str) -> None:
    """A path that looks like a host and a path is a route that does not exist."""
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: sandbox-1\r\nConnection: close\r\n\r\n"
    answer = await exchange(url, head.encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.asyncio
async def test_a_page_shows_no_markup_of_the_request(url: str) -> None:
    """The page of a 404 repeats the path as text."""
    target = "/<script>alert(1)</script>"
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: sandbox-1\r\nConnection: close\r\n\r\n"
    answer = await exchange(url, head.encode())
    assert b"<script>" not in answer


# ---------------------------------------------------------------------------------------------------------
# Any handler, any client


def selling(version: str, size: int) -> bytes:
    """Return the head of a sellback whose body, of so many bytes, waits for a word of the server."""
    lines = (
        f"POST /_/api/v1/vm/buyback {version}", "Host: localhost", "X-API-Key: sandbox-1", "Connection: close",
        "Content-Type: application/json", f"Content-Length: {size}", "Expect: 100-Continue",
    )  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.asyncio
async def test_a_client_that_waits_to_be_told_to_go_on(url: str, sandbox: Sandbox) -> None:
    """`Expect: 100-continue` is answered before the body comes, once."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    body = json.dumps({"item_id": item.id}).encode()
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(30):
            writer.write(selling("HTTP/1.1", len(body)))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"success": True, "amount": 1}


@pytest.mark.asyncio
async def test_a_client_of_http_1_0_is_told_nothing_of_the_kind(url: str) -> None:
    """It does not know such an answer, and would take it for the last."""
    answer = await exchange(url, selling("HTTP/1.0", 2) + b"{}")
    assert answer.startswith(b"HTTP/1.0 400 ")


@pytest.mark.asyncio
async def test_a_body_too_large_after_it_was_asked_for(url: str) -> None:
    """The refusal of a body that turns out too large still arrives."""
    answer = await exchange(url, selling("HTTP/1.1", 1_200_000) + b" " * 1_200_000)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 ")


@pytest.mark.asyncio
async def test_a_handler_that_raises_after_the_body_was_asked_for() -> None:
    """The client that was told to go on is told of the failure too."""

    def fail(_: Request) -> Response:
        raise ArithmeticError

    async with serve(fail) as base:
        answer = await exchange(base, selling("HTTP/1.1", 2) + b"{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "3"}, {"Content-Length": "9999"}, {"transfer-encoding": "chunked"},
        {"Content-Encoding": "gzip"}, {"content-encoding": "br", "Connection": "close", "TRANSFER-ENCODING": "gzip"},
        {"connection": "upgrade"},
    ],
    ids=lambda headers: ",".join(headers),
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_handler_that_repeats_the_headers_of_another_server(headers: dict[str, str]) -> None:
    """What another connection's answer said of itself is dropped; its other headers, and all of its body, arrive."""
    kept = {"Content-Type": "text/plain", "X-Other": "kept"}
    async with serve(lambda _: Response(201, {**headers, **kept}, b"whole body")) as base, aiohttp.ClientSession() as s:
        for _ in range(2):
            async with s.get(base) as answer:
                assert (answer.status, await answer.read()) == (201, b"whole body")
                assert answer.headers["Content-Length"] == "10"
                assert (answer.headers["Content-Type"], answer.headers["X-Other"]) == ("text/plain", "kept")
                assert not {"Transfer-Encoding", "Content-Encoding", "Connection"} & set(answer.headers)


@pytest.mark.asyncio
async def test_the_end_of_serving_waits_for_nobody() -> None:
    """Neither a request that never comes whole nor a handler that never ends holds it up; both are cut off."""
    cancelled: list[bool] = []
    begun = asyncio.Event()

    async def hang(_: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError

    # aiohttp gives them a minute by default.
    async with asyncio.timeout(30):
        async with serve(hang) as base:
            parts = urlsplit(base)
            streams = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(2)]
            streams[0][1].write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            streams[1][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
        for reader, writer in streams:
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    assert cancelled == [True]


# ---------------------------------------------------------------------------------------------------------
# Many at a time


@pytest.mark.asyncio
async def test_many_clients_at_once(url: str, sandbox: Sandbox) -> None:
    """Clients of their own buy, look and sell side by side, and none sees another's doings."""
    pack = sandbox.packs[0].id

    async def live(number: int) -> float:
        user = f"user{number}"
        async with aiohttp.ClientSession(f"{url}/_/api/v1/", headers=KEY) as session:
            amount = number % 5 + 1
            _, _, started = await ask(session, "POST", "vm/buy/init", {"id": pack, "amount": amount, "user_id": user})
            _, _, owned = await ask(session, "GET", f"inventory/{user}")
            assert [item["id"] for item in owned["items"]] == [item["id"] for item in started["nfts"]]
            return float(sum(item["buyback_price"] for item in owned["items"]))

    totals = await asyncio.gather(*(live(number) for number in range(60)))
    assert min(totals) > 0
    async with aiohttp.ClientSession(f"{url}/_/api/v1/", headers=KEY) as session:
        inventories = await asyncio.gather(*(ask(session, "GET", f"inventory/user{number}") for number in range(60)))
    assert [len(answer["items"]) for _, _, answer in inventories] == [number % 5 + 1 for number in range(60)]


@pytest.mark.asyncio
async def test_one_of_many_clients_sells(url: str, sandbox: Sandbox) -> None:
    """Of many clients that sell one item, one is paid."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(5))

    async def sell() -> int:
        async with aiohttp.ClientSession(headers=KEY) as session:
            status, _, _ = await ask(session, "POST", f"{url}/_/api/v1/vm/buyback", {"item_id": item.id})
            return status

    assert sorted(await asyncio.gather(*(sell() for _ in range(30)))) == [200] + [400] * 29


@pytest.mark.asyncio
async def test_a_client_of_the_standard_library(url: str, sandbox: Sandbox) -> None:
    """One connection of a plain HTTP client serves request after request, refusals included."""
    sandbox.add_user("user")
    parts = urlsplit(url)

    def work() -> list[tuple[int, str | None, bytes]]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        answers = []
        try:
            for method, path in (
                ("GET", "inventory/user"),
                ("GET", "inventory/no"),
                ("POST", "vm/buyback"),
                ("GET", "x"),
            ):
                connection.request(method, f"/_/api/v1/{path}", headers=KEY)
                answer = connection.getresponse()
                assert int(answer.headers["Content-Length"]) > 0
                answers.append((answer.status, answer.headers["Content-Type"], answer.read()))
        finally:
            connection.close()
        return answers

    known, unknown, sold, nowhere = await asyncio.to_thread(work)
    assert known == (200, JSON, b'{"user_id":"user","items":[]}')
    assert unknown == (404, JSON, b'{"error":"User not found"}')
    assert sold == (400, JSON, b'{"error":"Item not found"}')
    assert nowhere[:2] == (404, HTML)
