"""Cassettes: recorded once, and answered from without a network."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    Destination,
    Failed,
    Found,
    ItemNotFound,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    Request,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sandbox,
    Sent,
    TransportError,
    UserNotFound,
)
from phygitals_transports import (
    AiohttpTransport,
    CachingTransport,
    FaultTransport,
    MemoryTransport,
    RecordingTransport,
    ReplayTransport,
)
from phygitals_transports.aiohttp_server import serve
from support import ONCE
from virtual import settle, virtual_backend
from wrapper_support import KEY, Gate, get, json_answer, post, sandbox

anyio_backend = virtual_backend

HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a cassette is to be."""
    return tmp_path / "cassette.jsonl"


def text_of(path: Path) -> str:
    """Return what a cassette says, as it stands."""
    return path.read_text()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a cassette says."""
    return [json.loads(line) for line in text_of(path).splitlines()]


async def tour(api: PhygitalsClient) -> list[object]:
    """Use every operation, and return all that came of it."""
    seen: list[object] = [await api.get_inventory("ann"), await api.list_packs()]
    pack = (await api.list_packs())[0]
    seen += [await api.list_chase_cards(pack.slug or ""), await api.get_card("card-of-ann")]
    bought = await api.purchase(pack.id, 2, "ann", interval=0.001)
    seen += [bought, await api.list_recent_pulls(limit=2), await api.sell_back("card-of-ann")]
    for call in (api.sell_back("card-of-ann"), api.get_inventory("nobody")):
        with pytest.raises((ItemNotFound, UserNotFound)) as caught:
            await call
        seen.append((type(caught.value), str(caught.value)))
    quotes = await api.quote_shipping([bought.nfts[0].id], HOME)
    order = await api.request_shipping(quotes.quotes[0].id)
    return [*seen, quotes, order, await api.get_shipping_order(order.order_id), await api.get_inventory("ann")]


# Replays


@pytest.mark.anyio
@pytest.mark.parametrize("order", ["strict", "any"])
async def test_every_operation_replayed(path: Path, order: Any) -> None:
    """All that came of it comes of it again, with another key and from another server."""
    async with PhygitalsClient(RecordingTransport(MemoryTransport(sandbox()), path), api_key=KEY) as api:
        recorded = await tour(api)
    replay = ReplayTransport(path, order)
    assert len(replay.unused) == len(lines(path)) == 15
    assert replay.unused[0] == "GET /_/api/v1/inventory/ann"
    async with PhygitalsClient(replay, api_key="sandbox-2", base_url="http://127.0.0.1:1/_") as api:
        assert await tour(api) == recorded
    assert replay.unused == ()


def test_a_bulk_run_recorded_over_sockets(path: Path) -> None:
    """It replays without a network, with other limits, in another order of ids, and on trio, too."""
    made = Sandbox(seed=1)
    users = [f"user {number}/é" for number in range(60)]
    for user in users[::2]:
        made.add_user(user)

    async def refresh(api: PhygitalsClient, ids: list[str], limit: int) -> dict[str, object]:
        async with api, api.stream_inventories(ids, limit=limit) as outcomes:
            got: dict[str, object] = {}
            async for outcome in outcomes:
                match outcome:
                    case Found(user, inventory):
                        got[user] = inventory
                    case Failed(user, error):
                        got[user] = type(error)
            return got

    async def record() -> dict[str, object]:
        async with serve(made) as url:
            transport = RecordingTransport(AiohttpTransport(), path)
            return await refresh(PhygitalsClient(transport, api_key=KEY, base_url=f"{url}/_"), users, 8)

    recorded = anyio.run(record)
    assert len(recorded) == len(lines(path)) == 60

    def replay() -> PhygitalsClient:
        return PhygitalsClient(ReplayTransport(path, "any"), api_key="sandbox-2")

    assert anyio.run(refresh, replay(), users, 8) == recorded
    assert anyio.run(refresh, replay(), users[::-1], 3, backend="trio") == recorded


@pytest.mark.anyio
async def test_answers_that_came_in_another_order(path: Path) -> None:
    """Lines stand in the order of the answers, and are replayed in that of the requests."""
    gate = Gate()
    recording = RecordingTransport(MemoryTransport(gate), path)
    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(recording.send, get(f"/card/{name}"))
            await settle()
        for number in (2, 0, 1):
            gate.opened[number].set()
            await settle()
    assert [line["number"] for line in lines(path)] == [3, 1, 2]
    replay = ReplayTransport(path)
    assert [(await replay.send(get(f"/card/{name}"))).body for name in "abc"] == [b"1", b"2", b"3"]


@pytest.mark.anyio
async def test_the_same_request_several_times(path: Path) -> None:
    """It gets its answers one after another, each once; a body makes another request."""
    recording = RecordingTransport(MemoryTransport.answering("a", "b", "c", "d"), path)
    for each in (post("/x", b"1"), post("/x", b"2"), post("/x", b"1"), get("/x")):
        await recording.send(each)
    replay = ReplayTransport(path, "any")
    asked = [get("/x"), post("/x", b"1"), post("/x", b"1"), post("/x", b"2")]
    assert [(await replay.send(each)).body for each in asked] == [b'"d"', b'"a"', b'"c"', b'"b"']
    with pytest.raises(ConfigurationError, match=r"GET .*/x was recorded, but not as often as it is made"):
        await replay.send(get("/x"))


@pytest.mark.anyio
async def test_a_request_that_is_not_in_the_cassette(path: Path) -> None:
    """The error says so, is not repeated, and says of a sale that it never happened."""
    async with PhygitalsClient(RecordingTransport(MemoryTransport(sandbox()), path), api_key=KEY) as api:
        await api.get_inventory("ann")
        await api.sell_back("card-of-ann")
    replay = ReplayTransport(path)
    async with PhygitalsClient(replay, api_key=KEY) as api:
        with pytest.raises(ConfigurationError, match="GET /_/api/v1/inventory/bob was not recorded, in the cassette"):
            await api.get_inventory("bob")
        with pytest.raises(ConfigurationError, match=r"body of .* was not recorded") as unknown:
            await api.sell_back("card-of-bob")
        assert (unknown.value.sent, unknown.value.attempts) == (Sent.NEVER, 1)
        with pytest.raises(ConfigurationError, match=r"but not next \(that is GET .*/inventory/ann\)"):
            await api.sell_back("card-of-ann")
        before = replay.unused
        await api.get_inventory("ann")
        await api.sell_back("card-of-ann")
        assert (len(before), len(replay.unused)) == (2, 0)


@pytest.mark.anyio
async def test_bytes_of_any_kind(path: Path) -> None:
    """Bodies that are no text come back as they were, an empty one is not the same as none."""
    binary = bytes(range(256))
    answers = [Response(200, {"X": "é", "x": "second"}, binary), Response(204, {}, b""), json_answer(200, b"\xc3\xa9")]
    requests = [post("/a", binary), post("/a", b""), get("/a?x=%20y")]
    recording = RecordingTransport(MemoryTransport.answering(*answers), path)
    for each in requests:
        await recording.send(each)
    replay = ReplayTransport(path)
    assert [await replay.send(each) for each in requests] == answers
    replay = ReplayTransport(path, "any")
    with pytest.raises(ConfigurationError, match="not recorded"):
        await replay.send(Request("POST", requests[1].url, {}, None))


# Errors


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ConnectError, ConnectionLost, ProtocolError, ResponseTooLarge, TransportError])
@pytest.mark.parametrize("connected", [None, True, False])
async def test_an_error_comes_back(path: Path, error: type[TransportError], connected: bool | None) -> None:
    """Its class, its text, and the truth about the sending."""

    class OfALibrary(error):  # type: ignore[valid-type,misc]
        """A class that no replay knows."""

    def handler(request: Request) -> Response:
        if connected is not None:
            request.delivery.started, request.delivery.failed = connected, not connected
        raise OfALibrary("the line went dead")

    seen = []
    for make in (lambda: RecordingTransport(MemoryTransport(handler), path), lambda: ReplayTransport(path)):
        async with PhygitalsClient(make(), api_key=KEY, retry=ONCE) as api:
            with pytest.raises(error) as caught:
                await api.get_inventory("ann")
            with pytest.raises(PhygitalsError) as sale:
                await api.sell_back("card-of-ann")
        seen.append((caught.value.text, caught.value.sent, isinstance(sale.value, OutcomeUnknown), sale.value.sent))
    assert type(caught.value) is error
    assert seen[0] == seen[1]


@pytest.mark.anyio
async def test_a_bug_is_recorded_as_the_client_has_it(path: Path) -> None:
    """By its class alone: its text may hold headers."""

    def handler(request: Request) -> Response:
        raise ZeroDivisionError(f"headers: {dict(request.headers)}")

    texts = []
    for make in (lambda: RecordingTransport(MemoryTransport(handler), path), lambda: ReplayTransport(path)):
        async with PhygitalsClient(make(), api_key=KEY, retry=ONCE) as api:
            with pytest.raises(TransportError) as caught:
                await api.get_inventory("ann")
        texts.append((type(caught.value), caught.value.text, caught.value.sent))
    assert texts[0] == texts[1] == (TransportError, "the transport failed: ZeroDivisionError", Sent.UNKNOWN)
    assert "headers" not in text_of(path).replace('"headers"', "")


@pytest.mark.anyio
async def test_what_is_no_word_of_the_network_is_not_recorded(path: Path) -> None:
    """A closed transport, a wrong event loop, and a cancelled request."""
    gate = Gate()
    recording = RecordingTransport(MemoryTransport(gate), path)
    async with PhygitalsClient(recording, api_key=KEY, retry=ONCE) as api:
        with pytest.raises(DeadlineExceeded):
            await api.get_inventory("ann", deadline=1)
    with pytest.raises(ClientClosed):
        await recording.send(get("/x"))
    assert text_of(path) == ""
    assert ReplayTransport(path).unused == ()


@pytest.mark.anyio
async def test_a_run_through_an_outage(path: Path) -> None:
    """What was repeated then is repeated now."""
    faults = FaultTransport(MemoryTransport(sandbox()))
    faults.fail("get_inventory", times=1)
    faults.fail("get_inventory", 503, times=1)
    for make in (lambda: RecordingTransport(faults, path), lambda: ReplayTransport(path)):
        async with PhygitalsClient(make(), api_key=KEY, retry=RetryPolicy(base=0.001)) as api:
            assert len((await api.get_inventory("ann")).items) == 1
    assert [line.get("error", line.get("status")) for line in lines(path)] == ["ConnectError", 503, 200]


# The key


@pytest.mark.anyio
@pytest.mark.parametrize(
    "written",
    [
        lambda key: key,
        lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
        lambda key: key.replace("/", "\\/"),
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: "".join(f"%{ord(c):02X}" for c in key),
        lambda key: json.dumps("".join(f"\\u{ord(c):04x}" for c in key)),
    ],
    ids=["plain", "json", "slashes", "html", "url", "json in json"],
)
async def test_the_key_is_in_no_cassette(path: Path, written: Callable[[str], str]) -> None:
    """Not in what was asked, not in what was answered, not in an error; what there is can be replayed."""
    key = "sandbox-a/secret=key"
    echo = written(key)
    body = f'{{"error": "no such key: {echo}"}}'.encode()
    answers = [
        Response(403, {"X-Echo": echo, f"x-{key}": "1", "Set-Cookie": "session=1"}, body),
        Response(200, {}, b"\xff" + body),
        ConnectionLost(f"while sending {echo}"),
    ]
    requests = [
        Request("POST", f"https://api.phygitals.com/_/api/v1/x?key={echo}", {"X-API-Key": key}, body),
        Request("POST", "https://api.phygitals.com/_/api/v1/x", {"x-api-key": key, "Cookie": "a=1"}, b"\xff" + body),
        Request("GET", "https://api.phygitals.com/_/api/v1/x", {"x-api-key": key, "Authorization": "Basic 1"}),
    ]
    recording = RecordingTransport(MemoryTransport.answering(*answers), path)
    for each in requests[:2]:
        await recording.send(each)
    with pytest.raises(ConnectionLost):
        await recording.send(requests[2])
    text = text_of(path)
    said = lines(path)
    shown = json.dumps(said, ensure_ascii=False)
    assert key not in text
    assert echo not in text
    assert echo not in shown
    assert not any(word in text.lower() for word in ("api-key", "cookie", "authorization"))
    assert (said[0]["status"], said[2]["error"]) == (403, "ConnectionLost")
    replay = ReplayTransport(path)
    assert [(await replay.send(each)).status for each in requests[:2]] == [403, 200]
    with pytest.raises(ConnectionLost, match=r"\*\*\*|not shown"):
        await replay.send(requests[2])


# The file


@pytest.mark.anyio
async def test_a_cassette_grows(path: Path) -> None:
    """Recording goes on where the last one ended."""
    for number in range(3):
        recording = RecordingTransport(MemoryTransport.answering(number), path)
        await recording.send(get(f"/card/{number}"))
        await recording.aclose()
    assert [line["number"] for line in lines(path)] == [1, 2, 3]
    replay = ReplayTransport(str(path))
    assert [(await replay.send(get(f"/card/{number}"))).body for number in range(3)] == [b"0", b"1", b"2"]


_RECORD_MANY = """
import sys

import anyio

from phygitals_async import Request
from phygitals_transports import MemoryTransport, RecordingTransport

path, name = sys.argv[1:]


async def record():
    recording = RecordingTransport(MemoryTransport.answering("x" * 20_000), path)
    for number in range(50):
        await recording.send(Request("GET", f"https://api.phygitals.com/_/api/v1/card/{name}-{number}", {}))


anyio.run(record)
"""


def test_several_processes_write_one_cassette(path: Path) -> None:
    """Every line is whole, however they are mixed."""
    workers = [subprocess.Popen([sys.executable, "-c", _RECORD_MANY, str(path), name]) for name in "ab"]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert len(ReplayTransport(path).unused) == 100


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.anyio
@pytest.mark.parametrize("room", ["none", "a little"])
async def test_a_full_disk_does_not_hide_a_sale(path: Path, room: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer comes out; the gap is logged, and the next request refused before it is sent."""
    inner = MemoryTransport(sandbox())
    recording = RecordingTransport(inner, path)
    async with PhygitalsClient(recording, api_key=KEY) as api:
        await api.get_inventory("ann")
        with _room_for(len(text_of(path)) + (0 if room == "none" else 10)):
            assert (await api.sell_back("card-of-ann")).success
        with pytest.raises(ConfigurationError, match=r"the recording in .* has a gap") as caught:
            await api.sell_back("card-of-bob")
    assert caught.value.sent is Sent.NEVER
    assert len(inner.sent) == 2
    assert [record.levelno for record in caplog.records if "has a gap" in record.message] == [logging.ERROR]
    if room == "a little":
        with pytest.raises(ConfigurationError, match=r"the last line of .* is cut short"):
            RecordingTransport(inner, path)
        with pytest.raises(ConfigurationError, match="holds no exchange in line 2"):
            ReplayTransport(path)


@pytest.mark.anyio
async def test_an_answer_that_cannot_be_written_down(path: Path) -> None:
    """Headers that are none, of a transport that is not quite one, hide no answer."""
    answer = Response(200, {"x": 5}, b"")  # type: ignore[dict-item]
    recording = RecordingTransport(MemoryTransport.answering(answer), path)
    assert await recording.send(post("/vm/buyback")) is answer
    with pytest.raises(ConfigurationError, match=r"gap: AttributeError|gap: TypeError"):
        await recording.send(get("/x"))


def test_a_cassette_that_cannot_be_used(tmp_path: Path) -> None:
    """It is refused when the transport is made."""
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        RecordingTransport(MemoryTransport.answering({}), tmp_path / "none" / "cassette.jsonl")
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        ReplayTransport(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="order"):
        ReplayTransport(os.devnull, "random")  # type: ignore[arg-type]


GOOD = {"number": 1, "method": "GET", "url": "http://127.0.0.1/x", "body": None}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        "\xff",
        json.dumps({**GOOD, "error": "KeyError", "text": "", "sent": "NEVER"}),
        json.dumps({**GOOD, "error": "UserNotFound", "text": "", "sent": "NEVER"}),
        json.dumps({**GOOD, "error": "ConnectError", "text": "", "sent": "perhaps"}),
        json.dumps({**GOOD, "error": "Sent", "text": "", "sent": "NEVER"}),
        json.dumps({**GOOD, "error": "ConnectError"}),
        json.dumps({**GOOD, "status": 200, "headers": {}}),
        json.dumps({**GOOD, "status": 200, "headers": {}, "answer": 5}),
        json.dumps({**GOOD, "status": 200, "headers": {}, "answer": {"base64": "é"}}),
    ],
)
def test_a_line_that_is_no_exchange(path: Path, line: str) -> None:
    """It is named by its number."""
    good = json.dumps({**GOOD, "status": 200, "headers": {}, "answer": ""})
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"holds no exchange in line 2$"):
        ReplayTransport(path)


# The whole


@pytest.mark.anyio
async def test_a_replay_is_a_transport(path: Path) -> None:
    """It lets other tasks run, can be cancelled before it takes anything, and refuses once it is closed."""
    recording = RecordingTransport(MemoryTransport.answering({}), path)
    await recording.send(get("/x"))
    assert recording.is_open is False
    replay = ReplayTransport(path)
    request = get("/x")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await replay.send(request)
    assert request.delivery.sent is Sent.NEVER
    assert len(replay.unused) == 1
    await replay.aclose()
    await replay.aclose()
    with pytest.raises(ClientClosed):
        await replay.send(get("/x"))


@pytest.mark.anyio
async def test_wrappers_in_each_order(path: Path, tmp_path: Path) -> None:
    """Outside a cache, every call is recorded; inside it, what was really asked; a replay does for all of them."""
    outside, inside = path, tmp_path / "inside.jsonl"

    def stack(innermost: Any, *, record: bool) -> PhygitalsClient:
        faults = FaultTransport(innermost)
        faults.fail("sell_back", after_sending=True)
        if record:
            return PhygitalsClient(
                RecordingTransport(CachingTransport(RecordingTransport(faults, inside)), outside), api_key=KEY
            )
        return PhygitalsClient(CachingTransport(innermost), api_key=KEY)

    async def use(api: PhygitalsClient) -> list[object]:
        owned = [await api.get_inventory("ann"), await api.get_inventory("ann")]
        with pytest.raises(OutcomeUnknown):
            await api.sell_back("card-of-ann")
        return [*owned, await api.get_inventory("ann"), await api.get_inventory("ann")]

    async with stack(MemoryTransport(sandbox()), record=True) as api:
        recorded = await use(api)
    assert (len(lines(outside)), len(lines(inside))) == (5, 3)
    async with stack(ReplayTransport(inside), record=False) as api:
        assert await use(api) == recorded
    async with PhygitalsClient(ReplayTransport(outside), api_key=KEY) as api:
        assert await use(api) == recorded
