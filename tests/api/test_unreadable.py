"""What a client makes of an answer of which some rows cannot be read: `on_unreadable`."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import attrs
import pytest

from phygitals_async import (
    ConfigurationError,
    DecodeError,
    Destination,
    Failed,
    Found,
    OutcomeUnknown,
    PhygitalsClient,
    Response,
    build_converter,
)
from phygitals_async._api.endpoints import GET_INVENTORY, OPERATIONS
from phygitals_async._api.operation import Effect
from phygitals_async._api.wire import Wire
from phygitals_async.config import resolve_settings
from phygitals_transports import MemoryTransport
from support import fixture_json

pytestmark = pytest.mark.anyio

KEY = "sandbox-canary-7f3e9d2c51b84a06"
HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")


def client(body: object, on_unreadable: Literal["refuse", "keep"] = "refuse") -> PhygitalsClient:
    """Return a client whose every call is answered with `body`."""
    answer = Response(200, {"content-type": "application/json"}, json.dumps(body).encode())
    return PhygitalsClient(MemoryTransport(lambda _: answer), api_key=KEY, on_unreadable=on_unreadable)


def spoilt(rows: list[Any], field: str, value: object) -> list[Any]:
    """Return rows after a bad one."""
    return [{**copy.deepcopy(rows[0]), field: value}, *rows]


def an_inventory(value: object = None, field: str = "buyback_price") -> dict[str, Any]:
    """Return the documented inventory with a bad item before the good one."""
    plain: dict[str, Any] = fixture_json("inventory.json")
    return {**plain, "items": spoilt(plain["items"], field, value)}


def _bad(name: str, rows: str, field: str, value: object) -> Any:
    plain = fixture_json(name)
    return {**plain, rows: spoilt(plain[rows], field, value)} if rows else spoilt(plain, field, value)


Read = Callable[[PhygitalsClient], Awaitable[Any]]

# Each read of rows, an answer with a bad row before the good ones, where the good ones are, and how many.
READS: Mapping[str, tuple[Read, Any, str, int]] = {
    "list_packs": (lambda api: api.list_packs(), _bad("packs-list.json", "", "max_per_mint", "10"), "", 1),
    "list_chase_cards": (lambda api: api.list_chase_cards("s"), _bad("packs-chase.json", "", "id", None), "", 1),
    "list_recent_pulls": (
        lambda api: api.list_recent_pulls(),
        _bad("packs-recent-pulls.json", "", "buyback_price", None),
        "",
        2,
    ),
    "get_inventory": (lambda api: api.get_inventory("user_abc123"), an_inventory(), "items", 1),
    "quote_shipping": (
        lambda api: api.quote_shipping(["a"], HOME),
        _bad("ship-quote.json", "quotes", "estimated_days_min", None),
        "quotes",
        3,
    ),
    "get_shipping_order": (
        lambda api: api.get_shipping_order("order_123"),
        _bad("ship-order.json", "items", "name", None),
        "items",
        2,
    ),
}
_BY_READ = pytest.mark.parametrize("name", READS)


@_BY_READ
async def test_kept(name: str) -> None:
    """The readable rows are returned, and with them the path and the text of the other."""
    read, body, rows, count = READS[name]
    async with client(body, "keep") as api:
        answer = await read(api)
    assert len(getattr(answer, rows) if rows else answer) == count
    (row,) = answer.unreadable
    assert row.path == (f"$.{rows}[0]" if rows else "$[0]")
    assert json.loads(row.raw) == (body[rows] if rows else body)[0]
    assert row.problems[0].startswith(row.path)


@_BY_READ
async def test_refused(name: str) -> None:
    """Unasked, the answer is refused whole, and the error holds what would have been kept."""
    read, body, _, _ = READS[name]
    async with client(body) as api:
        with pytest.raises(DecodeError) as caught:
            await read(api)
    async with client(body, "keep") as api:
        kept = await read(api)
    error = caught.value
    assert (error.partial, error.partial.unreadable) == (kept, kept.unreadable)
    assert [problem for row in kept.unreadable for problem in row.problems] == [*error.problems]
    assert (error.operation, error.attempts, error.status) == (name, 1, 200)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (again.partial, again.partial.unreadable) == (kept, kept.unreadable)


@_BY_READ
async def test_a_good_answer_lacks_nothing(name: str) -> None:
    """It is the same, and of the same type, whatever is done with others."""
    read, body, rows, _ = READS[name]
    good = {**body, rows: body[rows][1:]} if rows else body[1:]
    answers = []
    choices: tuple[Literal["refuse", "keep"], ...] = ("refuse", "keep")
    for choice in choices:
        async with client(good, choice) as api:
            answers.append(await read(api))
    assert answers[0] == answers[1]
    assert type(answers[0]) is type(answers[1])
    assert answers[0].unreadable == answers[1].unreadable == ()


async def test_no_chase_cards_are_none() -> None:
    """A null in the place of the list is an empty one."""
    async with client(None, "keep") as api:
        cards = await api.list_chase_cards("s")
    assert (cards, cards.unreadable) == ((), ())


async def test_bulk_lookups_keep_too() -> None:
    """An inventory of a bulk run is kept as a single one is."""
    async with client(an_inventory(), "keep") as api:
        (outcome,) = await api.get_inventories(["user_abc123"])
        async with api.stream_inventories(["user_abc123"]) as outcomes:
            assert [outcome async for outcome in outcomes] == [outcome]
    assert isinstance(outcome, Found)
    assert (len(outcome.value.items), len(outcome.value.unreadable)) == (1, 1)


async def test_what_is_kept_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each answer: the operation and how many rows, and nothing of what is in them."""
    async with client(an_inventory("worth a fortune"), "keep") as api:
        await api.get_inventory("user_abc123")
        assert caplog.messages == ["get_inventory: unreadable rows left out of an answer: 1"]
        await api.get_inventories(["user_abc123"])
    assert [(record.name, record.levelname) for record in caplog.records] == [("phygitals_async", "WARNING")] * 2
    caplog.clear()
    async with client(an_inventory()) as api:
        with pytest.raises(DecodeError):
            await api.get_inventory("user_abc123")
    assert caplog.messages == []


async def test_a_failed_bulk_lookup_has_its_part() -> None:
    """Unasked, it is in the error."""
    async with client(an_inventory()) as api:
        (outcome,) = await api.get_inventories(["user_abc123"])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, DecodeError)
    assert len(outcome.error.partial.items) == 1


@pytest.mark.parametrize("body", [{"user_id": "user_abc123", "items": 5}, {"items": [5]}, [], "x", None])
async def test_what_is_wrong_besides_the_rows_is_never_kept(body: object) -> None:
    """Only rows can be missing from an answer."""
    async with client(body, "keep") as api:
        with pytest.raises(DecodeError) as caught:
            await api.get_inventory("user_abc123")
    assert caught.value.partial is None


async def test_part_of_somebody_elses_inventory_is_never_kept() -> None:
    """It is checked like a whole one."""
    async with client({**an_inventory(), "user_id": "somebody else"}, "keep") as api:
        with pytest.raises(DecodeError) as caught:
            await api.get_inventory("user_abc123")
    assert caught.value.partial is None


async def test_a_card_is_whole_or_refused() -> None:
    """It is one row."""
    async with client({**fixture_json("card-get.json"), "name": None}, "keep") as api:
        with pytest.raises(DecodeError, match=r"\$\.name: expected a string, got null") as caught:
            await api.get_card("a")
    assert caught.value.partial is None


@pytest.mark.parametrize("image", [None, ...])
async def test_a_card_may_lack_pictures_and_value(image: object) -> None:
    """Where they are null, or not there, they are None."""
    plain = fixture_json("card-get.json")
    plain.update(image=None, back_image=None, fmv=None)
    plain["metadata"].update(image=None, attributes=[{"trait_type": "Grader", "value": None}, {"trait_type": "Grade"}])
    if image is ...:
        for name in ("image", "back_image", "fmv"):
            del plain[name]
    async with client(plain) as api:
        card = await api.get_card("a")
    assert (card.image, card.back_image, card.fmv, card.metadata.image) == (None, None, None, None)
    assert [attribute.value for attribute in card.metadata.attributes] == [None, None]


async def test_days_may_be_a_fraction() -> None:
    """The documents call them numbers; a whole one is an int as ever."""
    plain = fixture_json("ship-quote.json")
    plain["quotes"][0].update(estimated_days_min=1.5, estimated_days_max=3)
    async with client(plain) as api:
        quote = (await api.quote_shipping(["a"], HOME)).quotes[0]
    assert (quote.estimated_days_min, quote.estimated_days_max) == (1.5, 3)
    assert type(quote.estimated_days_max) is int


# Calls that move money or goods


async def test_a_purchase_is_never_kept_in_part() -> None:
    """One item of it that cannot be read leaves the outcome unknown, with the session in `readable`."""
    plain = fixture_json("purchase-init.json")
    plain["nfts"] = spoilt(plain["nfts"], "buyback_price", None)
    async with client(plain, "keep") as api:
        with pytest.raises(OutcomeUnknown) as caught:
            await api.start_purchase("p", 2, "u")
    assert caught.value.readable == {"session_id": plain["session_id"]}
    assert isinstance(caught.value.__cause__, DecodeError)
    assert caught.value.__cause__.partial is None


@pytest.mark.parametrize("keeps", [True, False])
def test_no_call_that_moves_anything_is_kept(keeps: bool) -> None:
    """Whatever its answer looks like."""
    wire = Wire(resolve_settings(KEY, None, None, "/api/v1"), build_converter(), {}, keeps_unreadable=keeps)
    body = json.dumps(an_inventory()).encode()
    for effect in (Effect.MOVES_MONEY, Effect.MOVES_GOODS):
        with pytest.raises(DecodeError) as caught:
            wire.decode(attrs.evolve(GET_INVENTORY, effect=effect), {"user_id": "user_abc123"}, Response(200, {}, body))
        assert caught.value.partial is None


def test_which_answers_have_rows() -> None:
    """Those above, and no other: none of a call that moves money or goods."""
    rows = "unreadable"
    found = {
        operation.name
        for operation in OPERATIONS
        if not attrs.has(operation.answer) or rows in attrs.fields_dict(operation.answer)
    }
    assert found == set(READS)


# The key


async def test_the_key_is_masked_in_what_is_kept() -> None:
    """A row that cannot be read may be logged, and then shows no key; an error holds no answer that repeats it."""
    body = an_inventory({KEY: KEY})
    async with client(body, "keep") as api:
        kept = await api.get_inventory("user_abc123")
    assert KEY not in repr(kept)
    assert "***" in kept.unreadable[0].raw
    async with client(body) as api:
        with pytest.raises(DecodeError) as caught:
            await api.get_inventory("user_abc123")
    assert caught.value.partial is None
    assert KEY.encode() not in pickle.dumps(caught.value)


# The setting


@pytest.mark.parametrize("value", ["Keep", "", None, True, 5, ["keep"], KEY])
def test_any_other_choice_is_refused(value: Any) -> None:
    """Before anything is sent, and without showing what was given."""
    with pytest.raises(ConfigurationError, match=r"^on_unreadable must be 'refuse' or 'keep'$"):
        client({}, value)


async def test_what_the_api_itself_calls_unreadable_is_ignored() -> None:
    """It is this library's word: nothing that came off the wire may pass for it, or show a key."""
    row = {"path": "$", "problems": [], "raw": "sandbox-0123456789"}
    body = json.dumps({"user_id": "user_abc123", "items": [], "unreadable": [row]}).encode()
    transport = MemoryTransport(lambda _: Response(200, {}, body))
    async with PhygitalsClient(transport, api_key="sandbox-0123456789", on_unreadable="keep") as api:
        assert (await api.get_inventory("user_abc123")).unreadable == ()


def test_the_key_in_a_row_that_can_be_read_is_in_no_traceback() -> None:
    """Error reporters show the locals of every frame."""
    plain = an_inventory()
    plain["items"][1]["content"]["metadata"]["name"] = KEY
    wire = Wire(resolve_settings(KEY, None, None, "/api/v1"), build_converter(), {})
    with pytest.raises(DecodeError) as caught:
        wire.decode(GET_INVENTORY, {"user_id": "user_abc123"}, Response(200, {}, json.dumps(plain).encode()))
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # Not the frame of this test, which has the key.
    assert KEY not in "".join(line for line in shown.format() if __file__ not in line)
