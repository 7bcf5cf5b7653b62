"""The client's own life: made, used, closed; and what it shows of itself."""

from __future__ import annotations

import asyncio
import copy
import pickle
from decimal import Decimal
from typing import Any

import anyio
import cattrs
import pytest

import phygitals_async
from phygitals_async import (
    AuthenticationError,
    ClientClosed,
    ConfigurationError,
    Environment,
    Failed,
    Inventory,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    Sent,
    UserNotFound,
    build_converter,
)
from phygitals_async._api_key import ApiKey
from phygitals_transports import AiohttpTransport, MemoryTransport

KEY = "sandbox-5ecret"


class Recording(MemoryTransport):
    """A sandbox transport that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0
        sandbox = Sandbox(seed=1)
        self.item = sandbox.add_item("a", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
        super().__init__(sandbox)

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1
        await super().aclose()


@pytest.mark.anyio
async def test_get_inventory() -> None:
    """A call returns the model the answer stands for."""
    transport = Recording()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        inventory = await api.get_inventory("a")
    assert inventory == Inventory("a", (transport.item,))
    assert inventory.items[0].buyback_price == Decimal("8.50")


@pytest.mark.anyio
async def test_a_refusal_tells_what_was_attempted() -> None:
    """An error carries the operation and the attempts."""
    with pytest.raises(UserNotFound, match="get_inventory: 404 User not found") as caught:
        await PhygitalsClient(Recording(), api_key=KEY).get_inventory("nobody")
    assert (caught.value.operation, caught.value.attempts, caught.value.sent) == ("get_inventory", 1, Sent.YES)


@pytest.mark.anyio
async def test_leaving_the_block_closes_the_transport() -> None:
    """`async with` gives the client itself and closes the transport at its end."""
    transport = Recording()
    api = PhygitalsClient(transport, api_key=KEY)
    async with api as entered:
        assert entered is api
        assert transport.closed == 0
    assert transport.closed == 1


@pytest.mark.anyio
async def test_an_exception_in_the_block_closes_the_transport_and_passes() -> None:
    """The block hides nothing that is raised in it."""
    transport = Recording()
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with PhygitalsClient(transport, api_key=KEY):
            raise error
    assert caught.value is error
    assert transport.closed == 1


@pytest.mark.anyio
async def test_a_cancelled_block_closes_the_transport() -> None:
    """Cancellation passes through the block, and the transport is closed."""
    transport = Recording()
    with anyio.CancelScope() as scope:
        async with PhygitalsClient(transport, api_key=KEY):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert transport.closed == 1


@pytest.mark.anyio
async def test_calls_after_aclose_are_refused() -> None:
    """A closed client sends nothing; in bulk, each key tells so."""
    transport = Recording()
    api = PhygitalsClient(transport, api_key=KEY)
    await api.aclose()
    with pytest.raises(ClientClosed, match="get_inventory: the client was closed") as caught:
        await api.get_inventory("a")
    assert (caught.value.operation, caught.value.attempts, caught.value.sent) == ("get_inventory", 0, Sent.NEVER)
    (outcome,) = await api.get_inventories(["a"])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ClientClosed)
    assert outcome.error.operation == "get_inventory"
    assert transport.sent == []


@pytest.mark.anyio
async def test_a_transport_closed_by_somebody_else() -> None:
    """The transport's own `ClientClosed` carries the operation too."""
    transport = Recording()
    api = PhygitalsClient(transport, api_key=KEY)
    await transport.aclose()
    with pytest.raises(ClientClosed, match="get_inventory: the transport was closed"):
        await api.get_inventory("a")


@pytest.mark.anyio
async def test_aclose_twice() -> None:
    """Closing again, by hand or by the end of a block, does no harm."""
    transport = Recording()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.aclose()
        await api.aclose()
    assert transport.closed >= 1
    with pytest.raises(ClientClosed):
        await api.get_inventory("a")


@pytest.mark.anyio
async def test_repr() -> None:
    """The repr shows where the client goes and whether it is closed, and never the key."""
    api = PhygitalsClient(Recording(), api_key=KEY)
    assert repr(api) == "<PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1>"
    await api.aclose()
    assert repr(api) == "<PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1, closed>"
    production = PhygitalsClient(Recording(), api_key="5ecret", base_url="https://proxy.example/x", path_prefix="")
    assert repr(production) == "<PhygitalsClient production at https://proxy.example/x>"
    for shown in (repr(api), str(api), f"{api}", repr(production), repr(vars(api)), repr(vars(api._engine))):
        assert "5ecret" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_client_is_not_pickled(protocol: int) -> None:
    """A pickle would carry the key, or a client without one."""
    api = PhygitalsClient(Recording(), api_key=KEY)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(api, protocol)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.copy(api)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.deepcopy(api)


@pytest.mark.anyio
async def test_what_is_sent() -> None:
    """One GET with the key, what is accepted and who asks, and nothing else."""
    transport = Recording()
    await PhygitalsClient(transport, api_key=KEY).get_inventory("a")
    (request,) = transport.sent
    assert request == Request(
        "GET",
        "https://api.phygitals.com/_/api/v1/inventory/a",
        {
            "X-API-Key": KEY,
            "Accept": "application/json",
            "User-Agent": f"phygitals-async/{phygitals_async.__version__}",
        },
        None,
    )


@pytest.mark.anyio
async def test_a_transport_may_change_the_headers_of_its_request() -> None:
    """Each request has headers of its own, so a wrapper that edits them does not change later requests."""
    transport = Recording()
    api = PhygitalsClient(transport, api_key=KEY)
    await api.get_inventory("a")
    headers: Any = transport.sent[0].headers
    headers.clear()
    await api.get_inventory("a")
    assert transport.sent[1].headers["X-API-Key"] == KEY


@pytest.mark.anyio
async def test_the_url_is_put_together_of_its_parts() -> None:
    """Base URL, path prefix and the encoded id are appended, never resolved."""
    transport = Recording()
    api = PhygitalsClient(
        transport, api_key=KEY, environment="sandbox", base_url="https://proxy.example/_/", path_prefix="/v2/"
    )
    with pytest.raises(phygitals_async.NotFound):
        await api.get_inventory("a/b?c|é")
    assert transport.sent[0].url == "https://proxy.example/_/v2/inventory/a%2Fb%3Fc%7C%C3%A9"


@pytest.mark.anyio
async def test_a_converter_of_ones_own() -> None:
    """Hooks on a given converter shape every answer, one by one and in bulk; other clients keep theirs."""
    converter = build_converter()

    def shout(value: Any, cls: type[str]) -> str:
        return str(value).upper()

    converter.register_structure_hook(str, shout)
    transport = Recording()
    api = PhygitalsClient(transport, api_key=KEY, converter=converter)
    assert (await api.get_inventory("a")).user_id == "A"
    (outcome,) = (await api.get_inventories(["a"])).found
    assert outcome.value.items[0].name == "JUAN SOTO RC AUTO /25"
    assert (await PhygitalsClient(transport, api_key=KEY).get_inventory("a")).user_id == "a"


@pytest.mark.anyio
async def test_one_client_serves_concurrent_calls() -> None:
    """Calls side by side do not mix up their answers or errors."""
    api = PhygitalsClient(Recording(), api_key=KEY)
    found: list[str] = []
    missing: list[str | None] = []

    async def call(user_id: str) -> None:
        try:
            found.append((await api.get_inventory(user_id)).user_id)
        except UserNotFound as error:
            missing.append(error.operation)

    async with anyio.create_task_group() as group:
        for user_id in ["a", "b"] * 20:
            group.start_soon(call, user_id)
    assert found == ["a"] * 20
    assert missing == ["get_inventory"] * 20


@pytest.mark.anyio
async def test_a_refused_key_is_not_shown() -> None:
    """A 401 that echoes the key back is told without it."""

    def echo(request: Request) -> Response:
        return Response(401, {}, f'{{"error": "bad key {KEY}"}}'.encode())

    with pytest.raises(AuthenticationError) as caught:
        await PhygitalsClient(MemoryTransport(echo), api_key=KEY).get_inventory("a")
    for shown in (str(caught.value), repr(caught.value), repr(vars(caught.value)), str(pickle.dumps(caught.value))):
        assert "5ecret" not in shown


def test_the_default_transport_opens_nothing_until_used() -> None:
    """Without a transport the client speaks aiohttp; it is made outside any event loop, and opens nothing."""
    api = PhygitalsClient(api_key=KEY)
    transport = api._engine.transport
    assert isinstance(transport, AiohttpTransport)
    assert transport._own.session is None
    assert repr(api) == "<PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1>"
    asyncio.run(api.aclose())
    assert transport._own.session is None


def test_the_default_transport_tells_that_it_needs_asyncio() -> None:
    """Under trio the default transport is refused in plain words, before anything is sent."""

    async def main() -> None:
        async with PhygitalsClient(api_key=KEY) as api:
            with pytest.raises(ConfigurationError, match=r"get_inventory: .*asyncio only") as caught:
                await api.get_inventory("a")
            assert caught.value.sent is Sent.NEVER

    anyio.run(main, backend="trio")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment variables decide; arguments win over them."""
    with pytest.raises(ConfigurationError, match="no API key"):
        PhygitalsClient(Recording())
    monkeypatch.setenv("PHYGITALS_API_KEY", KEY)
    monkeypatch.setenv("PHYGITALS_ENVIRONMENT", "sandbox")
    monkeypatch.setenv("PHYGITALS_BASE_URL", "http://localhost:8080/_")
    assert repr(PhygitalsClient(Recording())) == "<PhygitalsClient sandbox at http://localhost:8080/_/api/v1>"
    given = PhygitalsClient(
        Recording(), api_key="other", environment=Environment.PRODUCTION, base_url="https://proxy.example"
    )
    assert repr(given) == "<PhygitalsClient production at https://proxy.example/api/v1>"


class _Half:
    async def send(self, request: Request) -> Response:
        return Response(200, {}, b"")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"retry": 3}, "retry must be a RetryPolicy, not int"),
        ({"retry": 0}, "retry must be a RetryPolicy, not int"),
        ({"converter": cattrs.Converter()}, "converter must come from build_converter"),
        ({"observer": _Half()}, "the observer's started must be a plain method"),
        ({"transport": MemoryTransport}, "not the class MemoryTransport"),
        ({"transport": _Half()}, "transport must be a Transport, not _Half"),
        ({"environment": ""}, "must be 'production' or 'sandbox'"),
        ({"base_url": "https://gateway.example/api/v1"}, "must not end with /api/v1"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_at_once(setting: dict[str, Any], text: str) -> None:
    """And not by the first call, which may have moved money by then."""
    with pytest.raises(ConfigurationError, match=text):
        PhygitalsClient(**{"transport": MemoryTransport(Sandbox()), "api_key": KEY, **setting})


class _SecretText(str):
    def __str__(self) -> str:
        return "***"


def test_a_key_is_taken_as_the_text_it_is() -> None:
    """Whatever a subclass of str, such as a member of an enum, shows of itself."""
    api = PhygitalsClient(MemoryTransport(Sandbox()), api_key=_SecretText(KEY))
    assert "sandbox at" in repr(api)


def test_a_part_of_a_key_is_as_hidden_as_the_whole() -> None:
    """Traceback printers shorten long strings before they print them."""
    assert repr(ApiKey("sandbox-5ecret")[:10]) == "'***'"


@pytest.mark.anyio
async def test_a_refused_key_says_where_it_was_refused() -> None:
    """A mistyped sandbox key looks like one of production."""
    api = PhygitalsClient(MemoryTransport(lambda _: Response(401, {}, b"{}")), api_key="sanbox-a")
    with pytest.raises(AuthenticationError, match=r"set up for production, at https://api\.phygitals\.com/api/v1$"):
        await api.list_packs()


@pytest.mark.parametrize("wrong", ["sandbox-test", Sandbox()], ids=["key", "sandbox"])
def test_what_is_no_transport_is_refused_at_once(wrong: Any) -> None:
    """A key or a sandbox in the transport's place is named, and not shown."""
    with pytest.raises(ConfigurationError, match="transport must be a Transport, not ") as caught:
        PhygitalsClient(wrong, api_key="sandbox-test")
    assert "sandbox-test" not in str(caught.value)
