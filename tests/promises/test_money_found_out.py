"""Finding out about an unknown outcome, as `OutcomeUnknown` says, and what can be saved of a broken answer."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import pytest

from money_support import CONVERTER, KEY, PATHS, USER, Spoil, always, difference, error_of, prepare, running_server
from phygitals_async import (
    ConnectionLost,
    DecodeError,
    Inventory,
    ItemAlreadyShipped,
    ItemNotFound,
    OutcomeUnknown,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    UserNotFound,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import MemoryTransport
from support import ONCE

# Finding out, as `OutcomeUnknown` says


SPOILED: Final = Spoil("dropped", always(b""), ConnectionLost)


@pytest.mark.asyncio
async def test_finding_out_about_a_purchase() -> None:
    """Items added with the pack's `claw_id` mean that it was bought; other packs' do not count."""
    async with running_server() as (server, api):
        first, second, _ = server.sandbox.packs
        await api.start_purchase(second.id, 1, USER)
        before = await api.get_inventory(USER)
        server.spoil = SPOILED
        error = await error_of(api.start_purchase(first.id, 3, USER))
        assert type(error) is OutcomeUnknown
        server.spoil = None
        await api.start_purchase(second.id, 2, USER)
        added = difference(before, await api.get_inventory(USER)).added
        assert len([item for item in added if item.claw_id == error.arguments["pack_id"]]) == 3
        assert len(added) == 5


@pytest.mark.asyncio
async def test_finding_out_about_the_first_purchase_of_a_user() -> None:
    """Before it the user is unknown, and so stands for one who owns nothing."""
    async with running_server() as (server, api):
        assert type(await error_of(api.get_inventory("newcomer"))) is UserNotFound
        server.spoil = SPOILED
        error = await error_of(api.start_purchase(server.sandbox.packs[0].id, 1, "newcomer"))
        assert type(error) is OutcomeUnknown
        diff = difference(Inventory("newcomer", ()), await api.get_inventory("newcomer"))
        assert [item.claw_id for item in diff.added] == [error.arguments["pack_id"]]


@pytest.mark.asyncio
async def test_finding_out_about_a_sellback() -> None:
    """The item is gone: it was sold. A second try cannot pay twice, and cannot tell either."""
    async with running_server() as (server, api):
        prepared = await prepare("sell_back", server.sandbox, api)
        server.spoil = SPOILED
        error = await error_of(prepared.make(api))
        assert type(error) is OutcomeUnknown
        owned = {item.id for item in (await api.get_inventory(USER)).items}
        assert error.arguments["item_id"] not in owned
        server.spoil = None
        assert type(await error_of(prepared.make(api))) is ItemNotFound
        assert server.performed == [PATHS["sell_back"]]


@pytest.mark.asyncio
async def test_finding_out_about_a_shipping_request() -> None:
    """The items are gone: an order was made. A second try makes no second order."""
    async with running_server() as (server, api):
        prepared = await prepare("request_shipping", server.sandbox, api)
        server.spoil = SPOILED
        assert type(await error_of(prepared.make(api))) is OutcomeUnknown
        owned = {item.id for item in (await api.get_inventory(USER)).items}
        assert not owned & set(prepared.item_ids)
        server.spoil = None
        assert type(await error_of(prepared.make(api))) is ItemAlreadyShipped
        assert server.performed == [PATHS["request_shipping"]]


def test_the_docstring_tells_how_to_find_out() -> None:
    """Each of the three calls is named, with what to compare."""
    text = " ".join((OutcomeUnknown.__doc__ or "").split())
    ways = dict(re.findall(r"- `(\w+)`: (.*?)(?= - `|$)", text))
    assert set(ways) == set(PATHS)
    assert "diff_inventories(before, after)" in ways["start_purchase"]
    assert "claw_id" in ways["start_purchase"]
    for name in ("sell_back", "request_shipping"):
        assert "inventory" in ways[name]
        assert "gone" in ways[name]


def test_the_arguments_of_an_unknown_outcome_can_be_stored() -> None:
    """What a reconciliation job needs is plain JSON for all three calls."""
    for operation in OPERATIONS:
        if operation.effect.is_irreversible:
            given = {a.name: 1 if a.name == "amount" else "x" for a in operation.body.values()}
            assert json.loads(json.dumps(operation.check(given))) == given


# What can be saved of a broken answer


SAVED: Final = [
    ("start_purchase", b'{"nfts":[{"id":"a"}],"session_id":"550e8400-PAID"}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":"550e8400-PAID","nfts":{}}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":"550e8400-PAID","nfts":["\\ud83d"]}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":7}x', {}),
    ("start_purchase", b'{"session_id":"","nfts":{}}', {}),
    ("start_purchase", b'{"session_id":null}', {}),
    ("start_purchase", b'["session_id"]', {}),
    ("start_purchase", b"[" * 100_000, {}),
    ("sell_back", b'{"success":"yes","amount":98.50}', {"amount": Decimal("98.50")}),
    ("sell_back", b'{"success":false,"amount":98.5}', {"amount": Decimal("98.5")}),
    ("start_purchase", b'{"session_id":"\\ud800","nfts":{}}', {}),
    ("start_purchase", b'{"session_id":"  ","nfts":{}}', {}),
    ("sell_back", b'{"success":"yes","amount":true}', {}),
    ("sell_back", b'{"success":"yes","amount":98}', {"amount": Decimal(98)}),
    ("sell_back", b'{"success":"yes","amount":"NaN"}', {}),
    ("sell_back", b'{"success":"yes","amount":1e-9999999999999999999}', {}),
    ("sell_back", b'{"success":true,"amount":9.75,"error":"boom"}', {"amount": Decimal("9.75")}),
    ("request_shipping", b'{"order_id":"order_1","status":null}', {"order_id": "order_1"}),
    ("request_shipping", f'{{"order_id":"{KEY}","status":null}}'.encode(), {}),
]


@pytest.mark.parametrize(("operation", "body", "saved"), SAVED)
@pytest.mark.anyio
async def test_what_can_be_read_of_a_broken_answer_is_not_lost(
    operation: str, body: bytes, saved: Mapping[str, object]
) -> None:
    """The only handle on what was paid for is worth more than the rest of the answer."""
    sandbox = Sandbox(seed=3)

    def handler(request: Request) -> Response:
        return Response(200, {}, body) if request.url.endswith(PATHS[operation]) else sandbox(request)

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)
        error = await error_of(prepared.make(api))
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, DecodeError)
    assert error.readable == saved
    assert pickle.loads(pickle.dumps(error)).readable == saved  # noqa: S301 - its own pickle.
