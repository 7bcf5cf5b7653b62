"""The transport that goes wrong on purpose."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import anyio
import pytest

from phygitals_async import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sandbox,
    Sent,
    ServerError,
)
from phygitals_transports import CachingTransport, FaultTransport, MemoryTransport
from support import ONCE
from virtual import virtual_backend
from wrapper_support import KEY, get, json_answer, sandbox

anyio_backend = virtual_backend


def over(made: Sandbox, seed: int = 0) -> tuple[PhygitalsClient, FaultTransport, MemoryTransport]:
    """Return a client that repeats nothing, its faults, and what sees the requests that the server gets."""
    inner = MemoryTransport(made)
    faults = FaultTransport(inner, seed)
    return PhygitalsClient(faults, api_key=KEY, retry=ONCE), faults, inner


@pytest.mark.anyio
async def test_without_faults_it_passes_everything_on() -> None:
    """The very answer, and what goes wrong inside; and it closes the inner transport."""
    answer = json_answer()
    inner = MemoryTransport.answering(answer, ConnectionLost("cut"))
    faults = FaultTransport(inner)
    assert await faults.send(get("/inventory/ann")) is answer
    with pytest.raises(ConnectionLost, match="cut"):
        await faults.send(get("/inventory/ann"))
    await faults.aclose()
    with pytest.raises(PhygitalsError, match="closed"):
        await inner.send(get("/x"))


@pytest.mark.anyio
async def test_the_answer_of_a_sale_is_lost() -> None:
    """The server has acted, nobody knows, and the inventory tells; the next sale goes well."""
    api, faults, inner = over(sandbox())
    lost = faults.fail("sell_back", times=1, after_sending=True)
    with pytest.raises(OutcomeUnknown) as caught:
        await api.sell_back("card-of-ann")
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert (caught.value.sent, lost.hits, len(inner.sent)) == (Sent.UNKNOWN, 1, 1)
    assert (await api.get_inventory("ann")).items == ()
    await api.sell_back("card-of-bob")
    assert lost.hits == 1


@pytest.mark.anyio
async def test_a_sale_that_never_leaves() -> None:
    """The server hears nothing, and the client may send it again."""
    api, faults, inner = over(sandbox())
    faults.fail("sell_back")
    with pytest.raises(ConnectError) as caught:
        await api.sell_back("card-of-ann")
    assert caught.value.sent is Sent.NEVER
    assert inner.sent == []

    eager = PhygitalsClient(faults, api_key=KEY, retry=RetryPolicy(base=0.001))
    faults.fail("sell_back", times=2)
    await eager.sell_back("card-of-ann")
    assert len(inner.sent) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("how", [ConnectionLost, ProtocolError, ResponseTooLarge])
async def test_a_sale_that_is_lost_on_its_way(how: type[PhygitalsError]) -> None:
    """It left, and the server heard nothing of it: nobody can know that."""
    api, faults, inner = over(sandbox())
    faults.fail("sell_back", how)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown) as caught:
        await api.sell_back("card-of-ann")
    assert type(caught.value.__cause__) is how
    assert caught.value.sent is how.sent
    assert inner.sent == []


@pytest.mark.anyio
@pytest.mark.parametrize("after_sending", [False, True])
async def test_an_answer_of_a_proxy(after_sending: bool) -> None:
    """A status or a whole answer, whether or not the server acted."""
    api, faults, inner = over(sandbox())
    faults.fail("get_inventory", 503, after_sending=after_sending)
    faults.fail("get_inventory", Response(429, {"retry-after": "7"}, b"slow down"), after_sending=after_sending)
    with pytest.raises(ServerError) as unavailable:
        await api.get_inventory("ann")
    assert (unavailable.value.status, unavailable.value.snippet) == (503, "")
    with pytest.raises(RateLimited) as limited:
        await api.get_inventory("ann")
    assert (limited.value.retry_after, limited.value.snippet) == (7.0, "slow down")
    assert len(inner.sent) == (2 if after_sending else 0)
    assert len((await api.get_inventory("ann")).items) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("how", "after_sending", "sent"),
    [
        (None, False, Sent.NEVER),
        (ConnectError, False, Sent.NEVER),
        (ConnectionLost, False, Sent.UNKNOWN),
        (500, False, Sent.UNKNOWN),
        (None, True, Sent.UNKNOWN),
        (500, True, Sent.UNKNOWN),
    ],
)
async def test_the_delivery_tells_the_truth(how: Any, after_sending: bool, sent: Sent) -> None:
    """Never sent exactly where the request was not to leave."""
    faults = FaultTransport(MemoryTransport.answering(json_answer()))
    faults.fail(None, how, after_sending=after_sending)
    request = get("/vm/available")
    with suppress(ConnectError, ConnectionLost):
        assert (await faults.send(request)).status == how
    assert request.delivery.sent is sent
    assert request.delivery.started is (sent is Sent.UNKNOWN)


@pytest.mark.anyio
async def test_what_a_fault_is_aimed_at() -> None:
    """One operation, or all requests, those of no operation too; so many times, or for good."""
    faults = FaultTransport(MemoryTransport.answering(json_answer()))
    cards = faults.fail("get_card", times=2)
    every = faults.fail(None, 500, times=None)
    paths = ["/card/a", "/vm/available", "/card/b", "/card/c", "/something/new"]
    got = []
    for path in paths:
        try:
            got.append((await faults.send(get(path))).status)
        except ConnectError:
            got.append(0)
    assert got == [0, 500, 0, 500, 500]
    assert (cards.hits, every.hits) == (2, 3)


@pytest.mark.anyio
async def test_chance_is_repeatable() -> None:
    """The same seed gives the same failures, another one others, each about as often as asked for."""

    async def outcomes(seed: int) -> list[int]:
        faults = FaultTransport(MemoryTransport.answering(json_answer()), seed)
        faults.fail(None, 500, times=None, chance=0.1)
        faults.fail(None, 503, times=3, chance=0.5)
        return [(await faults.send(get("/card/a"))).status for _ in range(500)]

    first = await outcomes(1)
    assert first == await outcomes(1)
    assert first != await outcomes(2)
    counts = Counter(first)
    assert 25 < counts[500] < 80
    assert counts[503] == 3


@pytest.mark.anyio
async def test_delays_add_up() -> None:
    """Before and after the server acts; a random one lies between its bounds, the same for the same seed."""
    took = []
    for _ in range(2):
        faults = FaultTransport(MemoryTransport.answering(json_answer()), 3)
        faults.delay("get_card", 2)
        faults.delay(None, (1, 5), after_sending=True)
        faults.delay(None, 100, times=1)
        started = anyio.current_time()
        for path in ("/vm/available", "/card/a", "/vm/available"):
            await faults.send(get(path))
            took.append(anyio.current_time() - started)
            started = anyio.current_time()
    assert took[:3] == pytest.approx(took[3:])
    assert 101 <= took[0] <= 105
    assert 3 <= took[1] <= 7
    assert 1 <= took[2] <= 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("after_sending", "sent", "reached"), [(False, Sent.NEVER, 0), (True, Sent.UNKNOWN, 1)], ids=["before", "after"]
)
async def test_a_deadline_that_passes_in_a_delay(after_sending: bool, sent: Sent, reached: int) -> None:
    """What came of the sale depends on which side of the server the time went by."""
    api, faults, inner = over(sandbox())
    faults.delay("sell_back", 60, after_sending=after_sending)
    with pytest.raises(DeadlineExceeded if sent is Sent.NEVER else OutcomeUnknown) as caught:
        await api.sell_back("card-of-ann", deadline=5)
    assert caught.value.sent is sent
    assert len(inner.sent) == reached
    assert len((await api.get_inventory("ann")).items) == 1 - reached


@pytest.mark.anyio
async def test_a_failure_that_takes_its_time() -> None:
    """Delays come before the failure that hits the same request."""
    api, faults, _ = over(sandbox())
    faults.delay("sell_back", 3)
    faults.delay("sell_back", 4, after_sending=True)
    faults.fail("sell_back", after_sending=True)
    started = anyio.current_time()
    with pytest.raises(OutcomeUnknown):
        await api.sell_back("card-of-ann")
    assert anyio.current_time() - started == pytest.approx(7)


@pytest.mark.anyio
async def test_a_sleep_of_ones_own() -> None:
    """It is what a delay waits by; an answer without delay is given at once, and cannot be lost to a cancellation."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    faults = FaultTransport(MemoryTransport.answering(json_answer()), sleep=sleep)
    await faults.send(get("/card/a"))
    faults.delay(None, 5, after_sending=True)
    await faults.send(get("/card/a"))
    assert slept == [0, 0, 5]


@pytest.mark.anyio
async def test_what_the_inner_transport_does_comes_first() -> None:
    """A lost answer cannot be lost again: the error from within is the one that is raised, and its truth stands."""

    def refused(_: object) -> Response:
        raise ConnectError("refused")

    faults = FaultTransport(MemoryTransport(refused))
    faults.fail(None, after_sending=True)
    request = get("/card/a")
    with pytest.raises(ConnectError):
        await faults.send(request)
    assert request.delivery.started is False


@pytest.mark.anyio
async def test_faults_below_and_above_a_cache() -> None:
    """Below, a failure is not kept; above, it hides what is kept."""
    below = FaultTransport(MemoryTransport(sandbox()))
    above = FaultTransport(CachingTransport(below, lifetime=60))
    async with PhygitalsClient(above, api_key=KEY, retry=ONCE) as api:
        below.fail("get_inventory", 503)
        with pytest.raises(ServerError):
            await api.get_inventory("ann")
        await api.get_inventory("ann")
        below.fail("get_inventory", times=None)
        await api.get_inventory("ann")
        above.fail("get_inventory", times=1)
        with pytest.raises(ConnectError):
            await api.get_inventory("ann")
        await api.get_inventory("ann")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("buy",), "'buy' is not one of the operations list_packs, "),
        (("purchase",), "start_purchase"),
        (("sell_back", ConnectError, True), "never|nothing was sent"),
    ],
)
def test_faults_that_make_no_sense(arguments: tuple[Any, ...], named: str) -> None:
    """They are refused when they are set, for they would never happen, or lie."""
    operation, how, after_sending = (*arguments, None, False)[:3] if len(arguments) == 1 else arguments
    faults = FaultTransport(MemoryTransport.answering(json_answer()))
    with pytest.raises(ConfigurationError, match=named):
        faults.fail(operation, how, after_sending=after_sending)
    if len(arguments) == 1:
        with pytest.raises(ConfigurationError, match=named):
            faults.delay(operation, 1)
