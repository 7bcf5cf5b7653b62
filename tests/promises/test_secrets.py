"""A canary key is put through calls of every outcome, and looked for in everything a program may print or keep."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from phygitals_async import (
    AddressRejected,
    AuthenticationError,
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    InvalidArgumentError,
    NotFound,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sandbox,
    ServerError,
    Transport,
    UserNotFound,
    build_converter,
)
from phygitals_async.conformance.server import free_port
from phygitals_transports import AiohttpTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from raw_server import Step, answer, raw_server
from support import ONCE

CANARY = "sandbox-canary-7f3e9d2c51b84a06e1d5c3b2"
# Half a key is too much already.
TELLTALE = CANARY[: len(CANARY) // 2]
ECHO = CANARY.encode()
JSON = {"Content-Type": "application/json", "X-Echo": CANARY}
MAX_BODY = 2000


class Recorder:
    """Keeps the last request and response that passed."""

    def __init__(self, inner: Transport) -> None:
        self.request: Request | None = None
        self.response: Response | None = None
        self._inner = inner

    async def send(self, request: Request) -> Response:
        """Pass it on, keeping both."""
        self.request = request
        self.response = await self._inner.send(request)
        return self.response

    async def aclose(self) -> None:
        """Close the inner one."""
        await self._inner.aclose()


@frozen
class Scene:
    """What a server does, and what a call makes of it."""

    step: Step
    error: type[PhygitalsError] | None


def refusal(status: int, text: str) -> Step:
    """Return an answer with the API's error body."""
    return answer(status, b'{"error":"' + text.encode() + b'"}', JSON)


SCENES = {
    "200": Scene(answer(200, b'{"user_id":"u","items":[],"echo":"' + ECHO + b'"}', JSON), None),
    "401": Scene(refusal(401, f"Invalid API key {CANARY}"), AuthenticationError),
    "404": Scene(refusal(404, "User not found"), UserNotFound),
    "404 echo": Scene(refusal(404, f"No route for {CANARY}"), NotFound),
    "404 HTML": Scene(answer(404, b"<pre>X-API-Key: " + ECHO + b"</pre>"), NotFound),
    # So long a pause is not waited for.
    "429": Scene(answer(429, b'{"error":"Slow down, ' + ECHO + b'"}', {**JSON, "Retry-After": "60"}), RateLimited),
    "500": Scene(refusal(500, f"{CANARY} broke {CANARY}"), ServerError),
    "500 text": Scene(answer(500, b"KeyError: " + ECHO, JSON), ServerError),
    "500 repeated": Scene(answer(500, b"{" + ECHO * 40, JSON), ServerError),
    "500 large": Scene(answer(500, b'{"error":"' + ECHO * 40 + b'"}', JSON), ServerError),
    "520 empty": Scene(answer(520, b"", JSON), ServerError),
    "redirect": Scene(answer(302, ECHO, {"Location": f"http://127.0.0.1:9/?key={CANARY}"}), RedirectRefused),
    "closed": Scene(Step(), ConnectionLost),
    "reset": Scene(Step(then="reset"), ConnectionLost),
    "cut": Scene(
        Step(b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO + b"\r\nContent-Length: 99\r\n\r\n" + ECHO), ConnectionLost
    ),
    "head cut": Scene(Step(b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO + b"\r\nX-Ec"), ConnectionLost),
    "garbage": Scene(Step(ECHO + b"\r\n\r\n"), ProtocolError),
    "bad header": Scene(Step(b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO + b"\0\r\n\r\n"), ProtocolError),
    "bad chunk": Scene(Step(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + ECHO), ProtocolError),
    "not JSON": Scene(answer(200, b"<html>" + ECHO, JSON), DecodeError),
    "not UTF-8": Scene(answer(200, b'{"user_id":"\xff","items":[],"echo":"' + ECHO + b'"}', JSON), DecodeError),
    "wrong type": Scene(answer(200, b'{"user_id":5,"items":"' + ECHO + b'"}', JSON), DecodeError),
    "wrong key": Scene(answer(200, b'{"' + ECHO + b'":{"user_id":"' + ECHO + b'"}}', JSON), DecodeError),
    "bad money": Scene(
        answer(200, b'{"user_id":"u","items":[{"id":"1","buyback_price":"' + ECHO + b'"}]}', JSON), DecodeError
    ),
    "bad time": Scene(
        answer(200, b'{"user_id":"u","items":[{"id":"1","purchased_at":"' + ECHO + b'"}]}', JSON), DecodeError
    ),
    "oversize": Scene(answer(200, ECHO * 100, JSON), ResponseTooLarge),
    "deadline": Scene(Step(then="hang"), DeadlineExceeded),
    "deadline in the body": Scene(
        Step(b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO + b"\r\nContent-Length: 99\r\n\r\n" + ECHO, "hang"), DeadlineExceeded
    ),
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and everything it chains, shown or not."""
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)


def texts_of_error(error: PhygitalsError) -> Iterator[str]:
    """Give everything that printing, logging, reporting or pickling an error may show."""
    for each in chain(error):
        yield from (repr(each), str(each), repr(each.args), repr(vars(each)), ascii(each), f"{each}")
    yield "".join(traceback.format_exception(error))
    yield from texts_of_pickles(error)


def text_with_locals(error: BaseException) -> str:
    """Give the traceback as error reporters take it, with the local variables of every frame."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def texts_of_pickles(thing: object) -> Iterator[str]:
    """Give the pickles, of every protocol, and what comes out of them."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(thing, protocol)
        yield data.decode("latin-1")
        yield repr(pickle.loads(data))  # noqa: S301


def assert_no_key(texts: Iterator[str] | list[str]) -> None:
    """See that not even half of the key is in any of the texts."""
    for text in texts:
        assert TELLTALE not in text, text[max(0, text.find(TELLTALE) - 500) :][:1000]


def texts_of_logs(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Give every log record with all that it carries."""
    for record in caplog.records:
        yield record.getMessage()
        yield repr(vars(record))
        if record.exc_info and record.exc_info[1] is not None:
            yield "".join(traceback.format_exception(record.exc_info[1]))


@pytest.fixture
def everything(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], Iterator[str]]]:
    """Give a function that returns all logs, warnings and output since the test began."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def texts() -> Iterator[str]:
            yield from texts_of_logs(caplog)
            yield from (f"{warning.message!r} {warning.message} {warning.source!r}" for warning in caught)
            yield from capfd.readouterr()

        yield texts


async def attempt(api: PhygitalsClient) -> PhygitalsError | None:
    """Make one call and return its error. This frame, part of every traceback here, holds no key itself."""
    try:
        await api.get_inventory("u")
    except PhygitalsError as error:
        return error
    return None


async def look_everywhere(api: PhygitalsClient, recorder: Recorder, expected: type[PhygitalsError] | None) -> None:
    """Make single and bulk calls, and look for the key in all that there is."""
    error = await attempt(api)
    assert type(error) is (expected or type(None))
    # The call did carry the key: what follows would otherwise find nothing for want of it.
    request, response = recorder.request, recorder.response
    assert request is not None
    assert request.headers["X-API-Key"] == CANARY
    things: list[object] = [api, recorder, request, response, api._engine, api._engine.wire.settings, vars(api._engine)]
    things += [request.headers, api._engine.wire.headers, recorder._inner, vars(recorder._inner)]
    batch = await api.get_inventories(["u", "v"], limit=2, patience=1.0)
    things += [batch, *batch, batch.outcomes]
    for failed in batch.failed:
        things += chain(failed.error)
        assert_no_key(texts_of_error(failed.error))
    assert_no_key([text for thing in things for text in (repr(thing), str(thing), ascii(thing))])
    assert_no_key(texts_of_pickles(request))
    if error is not None:
        assert_no_key(texts_of_error(error))
    for unpicklable in (api, api._engine.wire.settings):
        with pytest.raises(TypeError) as caught:
            pickle.dumps(unpicklable)
        assert_no_key([repr(caught.value), "".join(traceback.format_exception(caught.value))])


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SCENES)
async def test_over_aiohttp(name: str, everything: Callable[[], Iterator[str]]) -> None:
    """Over real sockets, whatever comes back, the key is in nothing that can be printed or kept."""
    asyncio.get_running_loop().set_debug(True)
    scene = SCENES[name]
    deadline = 0.1 if scene.error is DeadlineExceeded else 10.0
    # After a 429 the calls pause together, for as long as the client ever pauses.
    retry = RetryPolicy(retries=0, longest=0.01)
    recorder = Recorder(AiohttpTransport(max_body=MAX_BODY))
    async with (
        raw_server(scene.step) as server,
        PhygitalsClient(recorder, api_key=CANARY, retry=retry, base_url=f"{server.url}/_", deadline=deadline) as api,
    ):
        await look_everywhere(api, recorder, scene.error)
    # A busy machine may reach a short deadline before the request is out.
    assert scene.error is DeadlineExceeded or f"X-API-Key: {CANARY}".encode() in server.header_lines(0)
    assert_no_key(everything())


DESTINATION = Destination(name="A", line1="1 Main St", city="X", country="US")
CALLS: dict[str, Callable[[PhygitalsClient], Awaitable[object]]] = {
    "list_packs": lambda api: api.list_packs(),
    "list_chase_cards": lambda api: api.list_chase_cards("topps"),
    "list_recent_pulls": lambda api: api.list_recent_pulls(limit=5),
    "get_card": lambda api: api.get_card("1"),
    "start_purchase": lambda api: api.start_purchase("pack", 1, "u"),
    "get_purchase": lambda api: api.get_purchase("session"),
    "wait_for_purchase": lambda api: api.wait_for_purchase("session", deadline=0.1, interval=0.02),
    "sell_back": lambda api: api.sell_back("1"),
    "quote_shipping": lambda api: api.quote_shipping(["1"], DESTINATION),
    "request_shipping": lambda api: api.request_shipping("quote_1_rate_2"),
    "get_shipping_order": lambda api: api.get_shipping_order("order_1"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("scene", ["401", "404 echo", "500", "redirect", "closed", "cut", "not JSON", "deadline"])
@pytest.mark.parametrize("call", CALLS)
async def test_every_operation(call: str, scene: str, everything: Callable[[], Iterator[str]]) -> None:
    """No operation, those that move money or goods included, lets out the key when it fails."""
    # A busy machine may reach a short deadline before the request is out.
    is_short = scene == "deadline" or call == "wait_for_purchase"
    async with (
        raw_server(SCENES[scene].step) as server,
        PhygitalsClient(
            AiohttpTransport(), api_key=CANARY, retry=ONCE, base_url=f"{server.url}/_", deadline=0.1 if is_short else 10
        ) as api,
    ):
        with pytest.raises(PhygitalsError) as caught:
            await CALLS[call](api)
        assert is_short or f"X-API-Key: {CANARY}".encode() in server.header_lines(0)
        assert_no_key(texts_of_error(caught.value))
        assert_no_key(everything())


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.error is not None])
async def test_locals_of_every_frame(name: str) -> None:
    """A traceback taken with its frames' locals, as error reporters do, does not show the key or its echo."""
    scene = SCENES[name]
    deadline = 0.1 if scene.error is DeadlineExceeded else 10.0
    async with (
        raw_server(scene.step) as server,
        PhygitalsClient(
            AiohttpTransport(max_body=MAX_BODY),
            api_key=CANARY,
            retry=ONCE,
            base_url=f"{server.url}/_",
            deadline=deadline,
        ) as api,
    ):
        error = await attempt(api)
        assert error is not None
        assert type(error) is scene.error
        text = text_with_locals(error)
        # The locals are really there.
        assert "api = <PhygitalsClient" in text
        assert_no_key([text])


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_without_a_connection(scheme: str, everything: Callable[[], Iterator[str]]) -> None:
    """When nothing listens, or the handshake fails, the key is in nothing either."""
    recorder = Recorder(AiohttpTransport())
    async with (
        raw_server(Step(b"HTTP/1.1 400 Bad Request\r\n\r\n"), whole_head=False) as server,
        PhygitalsClient(
            recorder,
            api_key=CANARY,
            retry=ONCE,
            base_url=f"{scheme}://127.0.0.1:{server.port if scheme == 'https' else free_port()}",
        ) as api,
    ):
        await look_everywhere(api, recorder, ConnectError)
    assert ECHO not in b"".join(server.received)
    assert_no_key(everything())


@pytest.mark.anyio
@pytest.mark.parametrize(
    "response",
    [
        Response(200, {"x-echo": CANARY}, b'{"user_id":"u","items":[],"echo":"' + ECHO + b'"}'),
        Response(401, {"x-echo": CANARY}, b'{"error":"' + ECHO + b'"}'),
        Response(500, {"x-echo": CANARY}, ECHO * 3),
        Response(307, {"location": f"https://elsewhere.example/{CANARY}"}, b""),
        Response(503, {"retry-after": CANARY}, b'{"message":"' + ECHO + b'"}'),
        Response(200, {}, ECHO),
    ],
    ids=lambda response: str(response.status),
)
async def test_in_memory(response: Response, everything: Callable[[], Iterator[str]]) -> None:
    """In memory, on both event loops, the record of what was sent hides the key as well."""
    memory = MemoryTransport(lambda _: response)
    recorder = Recorder(memory)
    async with PhygitalsClient(recorder, api_key=CANARY, retry=ONCE) as api:
        error = await attempt(api)
        await look_everywhere(api, recorder, None if error is None else type(error))
    assert memory.sent[0].headers["X-API-Key"] == CANARY
    assert_no_key([repr(memory.sent), str(memory.sent[0]), *texts_of_pickles(memory.sent)])
    assert_no_key(everything())


@pytest.mark.asyncio
async def test_through_the_sandbox_server(everything: Callable[[], Iterator[str]]) -> None:
    """The sandbox's own server neither logs nor prints the key, be it accepted or refused."""
    sandbox = Sandbox(seed=1, clock=lambda: datetime(2026, 4, 18, tzinfo=UTC))
    sandbox.add_item("u", name="Card", buyback_price=Decimal(1))
    async with serve(sandbox) as url:
        recorder = Recorder(AiohttpTransport())
        async with PhygitalsClient(recorder, api_key=CANARY, retry=ONCE, base_url=f"{url}/_") as api:
            await look_everywhere(api, recorder, None)
        refused = PhygitalsClient(api_key=f"live-{CANARY}", base_url=f"{url}")
        error = await attempt(refused)
        await refused.aclose()
    assert isinstance(error, AuthenticationError)
    assert_no_key(texts_of_error(error))
    assert_no_key([repr(sandbox), repr(vars(sandbox))])
    texts = list(everything())
    assert texts
    assert_no_key(texts)


FILLERS = [b"x", b"\xff", "é".encode(), "🃏".encode(), b"\\u00e9", ECHO, b"x" + ECHO]


@pytest.mark.asyncio
@pytest.mark.parametrize("filler", FILLERS, ids=repr)
@pytest.mark.parametrize("place", ["message", "text"])
async def test_an_echo_at_any_place_of_a_long_body(place: str, filler: bytes) -> None:
    """Wherever the body is cut for the error's snippet, no part of the key is left at the cut."""
    body = b""
    transport = MemoryTransport(lambda _: Response(500, {}, body))
    async with PhygitalsClient(transport, api_key=CANARY, retry=ONCE) as api:
        for length in (*range(150, 260), *range(740, 900)):
            text = (filler * length)[:length] + ECHO + b" tail"
            if filler.endswith(ECHO):
                text = filler * (length // 10) + ECHO[: length % 10]
            body = b'{"error":"' + text + b'"}' if place == "message" else text
            error = await attempt(api)
            assert isinstance(error, ServerError)
            assert_no_key([error.message, error.snippet, str(error), repr(error)])


def make(case: str) -> None:
    """Make a client with the canary key. This frame, part of the tracebacks below, holds no key itself."""
    PhygitalsClient(**{"api_key": CANARY, **SETTINGS[case]})


SETTINGS: dict[str, dict[str, Any]] = {
    "line break": {"api_key": f"{CANARY}\n"},
    "space": {"api_key": f" {CANARY}"},
    "not ASCII": {"api_key": f"{CANARY}é"},
    "public API": {"api_key": f"phy_{CANARY}"},
    "bytes": {"api_key": CANARY.encode()},
    "sandbox key for production": {"environment": "production"},
    "live key for the sandbox": {"api_key": f"live-{CANARY}", "environment": "sandbox"},
    "no such environment": {"environment": "staging"},
    "sandbox key at the production URL": {"base_url": "https://api.phygitals.com"},
    "live key at the sandbox URL": {"api_key": f"live-{CANARY}", "base_url": "https://api.phygitals.com/_"},
    "plain http": {"base_url": "http://partner.example"},
    "no URL": {"base_url": "partner.example"},
    "bad port": {"base_url": "https://partner.example:99999"},
    "bad path prefix": {"path_prefix": "/../v1"},
    "bad deadline": {"deadline": -1.0},
}
MISPLACED: dict[str, dict[str, Any]] = {
    "key as environment": {"environment": CANARY},
    "key as base URL": {"base_url": CANARY},
    "key as scheme": {"base_url": f"{CANARY}://partner.example"},
    "key as user info": {"base_url": f"https://{CANARY}@partner.example"},
    "key as password": {"base_url": f"https://user:{CANARY}@partner.example"},
    "key as host of plain http": {"base_url": f"http://{CANARY}"},
    "key as port": {"base_url": f"https://partner.example:{CANARY}"},
    "key in brackets": {"base_url": f"https://[{CANARY}]/"},
    "key in the query": {"base_url": f"https://partner.example/?key={CANARY}"},
    "key in the fragment": {"base_url": f"https://partner.example/#{CANARY}"},
    "key after a space": {"base_url": f"https://partner.example/ {CANARY}"},
    "key in the path prefix": {"path_prefix": f"?key={CANARY}"},
    "key as deadline": {"deadline": CANARY},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_configuration_errors(case: str, everything: Callable[[], Iterator[str]]) -> None:
    """A refused setting shows the key nowhere."""
    with pytest.raises(ConfigurationError) as caught:
        make(case)
    assert_no_key(texts_of_error(caught.value))
    assert_no_key(everything())


@pytest.mark.parametrize("case", SETTINGS)
def test_locals_of_configuration_errors(case: str) -> None:
    """The key a client refuses, or refuses something else with, is in no local of the library's frames."""
    with pytest.raises(ConfigurationError) as caught:
        make(case)
    # This test's own frame is not looked at.
    caught.value.__traceback__ = caught.tb.tb_next
    text = text_with_locals(caught.value)
    assert f"case = {case!r}" in text
    assert_no_key([text])


@pytest.mark.parametrize("bad", [f"{CANARY}\n", f"phy_{CANARY}"], ids=["line break", "public API"])
def test_configuration_errors_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, bad: str, everything: Callable[[], Iterator[str]]
) -> None:
    """The same holds for a key that comes from the environment."""
    monkeypatch.setenv("PHYGITALS_API_KEY", bad)
    with pytest.raises(ConfigurationError) as caught:
        PhygitalsClient()
    assert_no_key(texts_of_error(caught.value))
    caught.value.__traceback__ = caught.tb.tb_next
    assert_no_key([text_with_locals(caught.value)])
    assert_no_key(everything())


@pytest.mark.parametrize("case", MISPLACED)
def test_a_key_in_the_wrong_place(case: str) -> None:
    """A key that was pasted where another setting belongs is not repeated by the error that says so."""
    with pytest.raises(ConfigurationError) as caught:
        PhygitalsClient(**{"api_key": "sandbox-other", **MISPLACED[case]})
    error = caught.value
    assert_no_key([repr(error), str(error), "".join(traceback.format_exception(error)).replace(repr(CANARY), "")])
    assert_no_key(texts_of_pickles(error))


@pytest.mark.anyio
async def test_calls_refused_before_sending() -> None:
    """A call with a bad argument, or on a closed client, shows the key nowhere either."""
    transport = MemoryTransport(lambda _: Response(200, {}, b""))
    api = PhygitalsClient(transport, api_key=CANARY, retry=ONCE)

    async def refused(user_id: str) -> PhygitalsError:
        try:
            await api.get_inventory(user_id)
        except PhygitalsError as error:
            return error
        raise AssertionError

    for user_id in ("", "..", "\ud800"):
        error = await refused(user_id)
        assert type(error) is InvalidArgumentError
        assert_no_key([*texts_of_error(error), text_with_locals(error)])
    await api.aclose()
    error = await refused("u")
    assert type(error) is ClientClosed
    assert_no_key([*texts_of_error(error), text_with_locals(error), repr(api)])
    assert transport.sent == []


def test_requests_and_responses_hide_headers_and_bodies() -> None:
    """Neither shows headers or body, also where they hold plain text that does not hide itself."""
    request = Request("POST", "https://partner.example/x", {"X-API-Key": CANARY}, ECHO)
    response = Response(200, {"x-echo": CANARY}, ECHO)
    assert_no_key([repr(request), str(request), repr(response), str(response)])
    assert "https://partner.example/x" in repr(request)
    assert "200" in repr(response)


def test_the_search_finds_what_it_looks_for() -> None:
    """The canary would sing: a key in an error, a local or a pickle is found."""

    def careless() -> None:
        header = {"X-API-Key": CANARY}
        raise ConfigurationError(f"{len(header)} header refused")

    with pytest.raises(ConfigurationError) as caught:
        careless()
    with pytest.raises(AssertionError):
        assert_no_key([text_with_locals(caught.value)])
    for careless_error in (ConfigurationError(CANARY), ServerError(snippet=CANARY)):
        with pytest.raises(AssertionError):
            assert_no_key(texts_of_error(careless_error))
        with pytest.raises(AssertionError):
            assert_no_key(texts_of_pickles(careless_error))


def _same(response: Response, _: Request) -> Response:
    return response


@pytest.mark.parametrize(
    "echo",
    [
        r"live-ab\/cd<ef>\"gh",
        r"live\u002dab\/cd\u003cef>\"gh",
        "live-ab%2Fcd%3Cef%3E%22gh",
        "live-ab/cd&lt;ef&gt;&quot;gh",
    ],
    ids=["JSON", "escapes", "URL", "HTML"],
)
@pytest.mark.parametrize("status", [400, 401, 404, 200])
@pytest.mark.anyio
async def test_a_key_that_comes_back_in_other_letters(echo: str, status: int) -> None:
    """JSON, HTML and URLs write some characters otherwise, and the key can be read off them all the same."""
    key = 'live-ab/cd<ef>"gh'
    bodies = (f'{{"error":"Invalid API key: {echo}"}}', f"<h1>{echo}</h1>", f'{{"{echo}":1e999,"destination":7}}')
    for body in bodies:
        response = Response(status, {}, body.encode())
        async with PhygitalsClient(MemoryTransport(partial(_same, response)), api_key=key) as api:
            with pytest.raises(PhygitalsError) as caught:
                await api.get_shipping_order("o")
        shown = repr(vars(caught.value)) + str(caught.value)
        assert "cd" not in shown.replace("code", "").replace("decode", ""), shown
        assert "cd" not in pickle.dumps(caught.value).decode("latin-1").replace("code", "")


@pytest.mark.anyio
async def test_a_suggested_address_that_holds_the_key_is_none() -> None:
    """It would be printed, and sent."""
    body = b'{"error":"Invalid destination address","suggested":{"line1":"%s"}}' % CANARY.encode()
    home = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
    async with PhygitalsClient(MemoryTransport(lambda _: Response(400, {}, body)), api_key=CANARY) as api:
        with pytest.raises(AddressRejected) as caught:
            await api.quote_shipping(["a"], home)
    assert caught.value.suggestion is None


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.anyio
async def test_what_a_hook_of_the_callers_says_of_a_value(keeps: bool, everything: Callable[[], Iterator[str]]) -> None:
    """Python's own errors quote it, and a server may echo the key anywhere."""
    converter = build_converter()
    converter.register_structure_hook(datetime, lambda text, _: datetime.strptime(text, "%Y").replace(tzinfo=UTC))
    response = Response(200, {}, b'{"user_id":"u","items":[{"id":"1","purchased_at":"%s"}]}' % ECHO)
    async with PhygitalsClient(
        MemoryTransport(lambda _: response),
        api_key=CANARY,
        converter=converter,
        on_unreadable="keep" if keeps else "refuse",
    ) as api:
        if keeps:
            (row,) = (await api.get_inventory("u")).unreadable
            assert "does not match format" in str(row.problems)
            assert_no_key([repr(row), *row.problems, row.raw, *texts_of_pickles(row)])
        else:
            error = await attempt(api)
            assert isinstance(error, DecodeError)
            assert "does not match format" in str(error.problems)
            assert_no_key(texts_of_error(error))
    assert_no_key(everything())
