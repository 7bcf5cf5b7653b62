"""`owner=`: whose an item is, found out before it is sold or quoted."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import anyio
import pytest
from attrs import evolve

from phygitals_async import (
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    InvalidArgumentError,
    NotOwned,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sandbox,
    Sent,
    UserNotFound,
    fan_out_all,
)
from phygitals_transports import MemoryTransport
from support import ONCE
from virtual import VirtualLoop, virtual_backend

anyio_backend = virtual_backend

WHERE = Destination(name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US")


class Two:
    """A sandbox in which two users own an item each, and a client of it.

    Attributes:
        mine: The item of `me`.
        yours: The item of `you`.
        answer: What answers.
    """

    def __init__(self) -> None:
        self.sandbox = Sandbox(seed=1)
        price = Decimal("8.50")
        self.mine = self.sandbox.add_item("me", name="Juan Soto RC Auto /25", buyback_price=price).id
        self.yours = self.sandbox.add_item("you", name="Mike Trout Base", buyback_price=price).id
        self.transport = MemoryTransport(self.sandbox)
        self.api = PhygitalsClient(self.transport, api_key="sandbox-test", retry=ONCE)

    @property
    def sent(self) -> list[str]:
        """The last part of the path of each request."""
        return [request.url.rpartition("/api/v1")[2] for request in self.transport.sent]


@pytest.mark.anyio
async def test_an_owner_sells_and_quotes_what_is_theirs() -> None:
    """One read comes before, and the call is what it always is."""
    it = Two()
    quotes = await it.api.quote_shipping([it.mine], WHERE, owner="me")
    assert quotes.quotes
    assert (await it.api.sell_back(it.mine, owner="me")).amount == Decimal("8.50")
    assert it.sent == ["/inventory/me", "/ship/quote", "/inventory/me", "/vm/buyback"]


@pytest.mark.anyio
async def test_nobody_sells_or_quotes_what_is_another_users() -> None:
    """Nothing is sent but the read, and the error says what was asked for whom."""
    it = Two()
    with pytest.raises(NotOwned) as caught:
        await it.api.sell_back(it.yours, owner="me")
    error = caught.value
    assert str(error) == f"sell_back: nothing was sent: 'me' does not own {it.yours!r}"
    assert (error.owner, error.item_ids) == ("me", (it.yours,))
    assert (error.operation, error.attempts, error.sent) == ("sell_back", 0, Sent.NEVER)
    assert error.arguments == {"item_id": it.yours, "owner": "me"}
    assert error.__cause__ is None
    with pytest.raises(NotOwned) as caught:
        await it.api.quote_shipping(iter([it.mine, it.yours, "a", "b", "c"]), WHERE, owner="me")
    assert caught.value.item_ids == (it.yours, "a", "b", "c")
    assert str(caught.value).endswith(f"'me' does not own {it.yours!r}, 'a', 'b', ...")
    assert it.sent == ["/inventory/me"] * 2
    assert len((await it.api.get_inventory("you")).items) == 1


@pytest.mark.anyio
async def test_a_user_that_the_api_does_not_know_owns_nothing() -> None:
    """The API's own answer is the cause."""
    it = Two()
    with pytest.raises(NotOwned, match="'nobody' does not own") as caught:
        await it.api.sell_back(it.mine, owner="nobody")
    assert isinstance(caught.value.__cause__, UserNotFound)


@pytest.mark.anyio
async def test_what_could_not_be_sent_asks_nothing() -> None:
    """Arguments are checked before the read."""
    it = Two()
    wrong: Any
    for wrong in (("", "me"), (it.mine, ""), (it.mine, 5)):
        with pytest.raises(InvalidArgumentError, match=r"^sell_back: (item_id|owner) must"):
            await it.api.sell_back(wrong[0], owner=wrong[1])
    with pytest.raises(ConfigurationError, match="deadline"):
        await it.api.sell_back(it.mine, owner="me", deadline=0)
    assert it.sent == []


@pytest.mark.anyio
async def test_a_read_that_fails_says_that_it_was_the_read() -> None:
    """Its error comes out as it is: nothing was sold, so nothing is unknown."""

    def breaks(_: Request) -> Response:
        raise ConnectionLost("the line went dead")

    api = PhygitalsClient(MemoryTransport(breaks), api_key="sandbox-test", retry=ONCE)
    with pytest.raises(ConnectionLost, match="get_inventory: the line went dead"):
        await api.sell_back("item", owner="me")


@pytest.mark.anyio
async def test_an_item_that_cannot_be_read_is_not_said_to_be_somebody_elses() -> None:
    """Where a client keeps answers with rows that cannot be read, the one that is missing may be among them."""
    it = Two()

    def handler(request: Request) -> Response:
        response = it.sandbox(request)
        return evolve(response, body=response.body.replace(b'"name":"Juan Soto RC Auto /25"', b'"name":5'))

    api = PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", on_unreadable="keep")
    other = it.sandbox.add_item("me", name="Another Card", buyback_price=Decimal(1)).id
    with pytest.raises(DecodeError, match=r"^get_inventory: what is not found may be among .*name") as caught:
        await api.sell_back(it.mine, owner="me")
    assert caught.value.arguments == {"user_id": "me"}
    assert (await api.sell_back(other, owner="me")).success


@pytest.mark.anyio
@pytest.mark.parametrize(("stalling", "error"), [("/inventory/me", DeadlineExceeded), ("/vm/buyback", OutcomeUnknown)])
async def test_one_deadline_covers_both(stalling: str, error: type[PhygitalsError]) -> None:
    """The read may take half of it; the sale has what is left."""
    it = Two()

    async def handler(request: Request) -> Response:
        if request.url.endswith(stalling):
            await anyio.sleep_forever()
        await anyio.sleep(4)
        return it.sandbox(request)

    api = PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", retry=ONCE, deadline=10)
    began = anyio.current_time()
    with pytest.raises(error):
        await api.sell_back(it.mine, owner="me")
    assert anyio.current_time() - began == pytest.approx(5 if error is DeadlineExceeded else 10)


@pytest.mark.anyio
async def test_in_a_bulk_run_the_wait_for_a_turn_takes_nothing_from_the_call() -> None:
    """The time of the look, and so of the sale, begins when the look has its turn."""
    sandbox = Sandbox(seed=1)
    items = [sandbox.add_item("me", name="Mike Trout Base", buyback_price=Decimal(1)).id for _ in range(20)]
    api = PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test", deadline=1, rate=10)
    batch = await fan_out_all(lambda item: api.sell_back(item, owner="me"), items)
    # The sale itself moves money, and waits no longer than its deadline allows.
    assert {type(failed.error) for failed in batch.failed} <= {DeadlineExceeded}
    assert {failed.error.sent for failed in batch.failed} <= {Sent.NEVER}
    assert len((await api.get_inventory("me")).items) == len(batch.failed)
    assert len(batch.found) > len(items) / 2


def test_a_look_that_took_all_the_time_is_a_deadline_that_passed() -> None:
    """A handler that blocks the event loop past the deadline is cut short by nothing."""
    loop = VirtualLoop()

    async def main() -> None:
        two = Two()

        def blocking(request: Request) -> Response:
            loop.pass_time(3)
            return two.sandbox(request)

        transport = MemoryTransport(blocking)
        api = PhygitalsClient(transport, api_key="sandbox-test")
        with pytest.raises(DeadlineExceeded, match="not sent within 2 s") as caught:
            await api.sell_back(two.mine, owner="me", deadline=2)
        assert caught.value.sent is Sent.NEVER
        assert caught.value.operation == "sell_back"
        assert len(transport.sent) == 1

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
