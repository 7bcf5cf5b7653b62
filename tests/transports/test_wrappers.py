"""Wrappers in any order, over sockets and in memory: what every transport promises holds of each stack."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from phygitals_async import (
    ClientClosed,
    OutcomeUnknown,
    PhygitalsClient,
    Sandbox,
    Sent,
    ServerError,
    Transport,
    UserNotFound,
)
from phygitals_transports import (
    AiohttpTransport,
    CachingTransport,
    FaultTransport,
    MemoryTransport,
    RecordingTransport,
)
from phygitals_transports.aiohttp_server import serve
from support import ONCE
from wrapper_support import KEY, get

STACKS = list(itertools.permutations(["caching", "recording", "faults"]))
ENGINES = [("aiohttp", "asyncio"), ("memory", "asyncio"), ("memory", "trio")]


@pytest.fixture(params=ENGINES, ids=["-".join(each) for each in ENGINES])
def engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Give each engine with each event loop it runs on."""
    name, loop = request.param
    return name, loop


@pytest.fixture
def anyio_backend(engine: tuple[str, str]) -> str:
    """Run on the engine's event loop."""
    return engine[1]


@asynccontextmanager
async def stacked(
    names: tuple[str, ...], engine: tuple[str, str], made: Sandbox, path: Path
) -> AsyncIterator[tuple[PhygitalsClient, FaultTransport, Transport]]:
    """Give a client through a stack of wrappers, outermost first, its faults, and what is innermost."""
    innermost: Transport = MemoryTransport(made) if engine[0] == "memory" else AiohttpTransport()
    wrap: dict[str, Callable[[Transport], Transport]] = {
        "caching": lambda inner: CachingTransport(inner, lifetime=600),
        "recording": lambda inner: RecordingTransport(inner, path),
        "faults": FaultTransport,
    }
    transport, faults = innermost, None
    for name in reversed(names):
        transport = wrap[name](transport)
        faults = transport if isinstance(transport, FaultTransport) else faults
    assert faults is not None
    async with (
        serve(made) if engine[0] == "aiohttp" else _nowhere() as url,
        PhygitalsClient(transport, api_key=KEY, base_url=f"{url}/_", retry=ONCE) as api,
    ):
        yield api, faults, innermost
        assert transport.is_open is (engine[0] == "aiohttp")  # type: ignore[attr-defined]
    with pytest.raises(ClientClosed):
        await innermost.send(get("/x"))


@asynccontextmanager
async def _nowhere() -> AsyncIterator[str]:
    yield "http://127.0.0.1:1"


@pytest.mark.anyio
@pytest.mark.parametrize("names", STACKS, ids="-".join)
async def test_a_stack(names: tuple[str, ...], engine: tuple[str, str], tmp_path: Path) -> None:
    """Reads, a lost sale, what comes after it, a refusal, an error of a proxy, and a bulk run."""
    made = Sandbox(seed=1)
    for user in ("ann", "bob"):
        made.add_item(user, id=f"card-of-{user}", name="Card", buyback_price=Decimal("8.50"))
    path = tmp_path / "cassette.jsonl"
    async with stacked(names, engine, made, path) as (api, faults, _):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(api.get_inventory, "ann")
        lost = faults.fail("sell_back", after_sending=True)
        with pytest.raises(OutcomeUnknown) as caught:
            await api.sell_back("card-of-ann")
        assert (caught.value.sent, lost.hits) == (Sent.UNKNOWN, 1)
        assert (await api.get_inventory("ann")).items == ()
        with pytest.raises(UserNotFound):
            await api.get_inventory("nobody")
        faults.fail("get_shipping_order", 503)
        with pytest.raises(ServerError):
            await api.get_shipping_order("order_1")
        batch = await api.get_inventories(["ann", "bob", "nobody"], limit=2)
        assert [len(batch.found), len(batch.failed)] == [2, 1]
    assert KEY not in path.read_text()


@pytest.mark.anyio
@pytest.mark.parametrize("names", STACKS, ids="-".join)
async def test_what_is_never_sent_through_a_stack(
    names: tuple[str, ...], engine: tuple[str, str], tmp_path: Path
) -> None:
    """It is known through each wrapper, whoever says it."""
    async with stacked(names, engine, Sandbox(seed=1), tmp_path / "cassette.jsonl") as (api, faults, _):
        for operation, call in (("sell_back", api.sell_back), ("get_inventory", api.get_inventory)):
            faults.fail(operation)
            with pytest.raises(Exception, match="purpose") as caught:
                await call("x")
            assert caught.value.sent is Sent.NEVER  # type: ignore[attr-defined]
        # An engine makes its session when it first sends.
        await api.list_packs()
