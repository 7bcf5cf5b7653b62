"""The sandbox: keys, routes, inventories, and a population of users."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from phygitals_async import Attribute, Inventory, Item, ItemSource, PhygitalsClient, Request, Sandbox, build_converter
from phygitals_async.sandbox.population import MOST_ITEMS, populate, user_name
from phygitals_transports import MemoryTransport
from structuring_support import with_nulls
from support import fixture_json

ORIGIN = "https://api.phygitals.com"
NOW = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
WEEK = timedelta(days=7)
BASE58 = set("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")


def ask(
    sandbox: Sandbox, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    """Make a request and return status, content type and body."""
    response = sandbox(
        Request(method, ORIGIN + path, {"X-API-Key": "sandbox-test"} if headers is None else headers),
    )
    return response.status, response.headers["content-type"], response.body


def inventory(sandbox: Sandbox, user_id: str) -> Inventory:
    """Return a user's inventory as a client would read it."""
    status, _, body = ask(sandbox, f"/_/api/v1/inventory/{quote(user_id, safe='')}")
    assert status == 200
    return build_converter().loads(body, Inventory)


def fixed() -> Sandbox:
    """Return a sandbox whose time stands still."""
    return Sandbox(clock=lambda: NOW, seed=1)


# ---------------------------------------------------------------------------------------------------------
# Keys and routes


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "unknown"},
        {"X-API-Key": "live-1234"},
        {"X-API-Key": "sandbox"},
        {"X-API-Key": "my-sandbox-key"},
        {"X-API-Key": "Sandbox-1"},
        {"Authorization": "Bearer sandbox-test"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", ["/api/v1/inventory/u", "/_/api/v1/inventory/nobody", "/_/api/v1/nothing"])
def test_keys_that_are_refused(headers: dict[str, str], path: str) -> None:
    """A missing, empty or unknown key gives the documented 401, whatever is asked for."""
    sandbox = fixed()
    sandbox.add_user("u")
    status, content_type, body = ask(sandbox, path, headers=headers)
    assert (status, json.loads(body)) == (401, {"error": "Invalid API key"})
    assert content_type.startswith("application/json")


@pytest.mark.parametrize("name", ["X-API-Key", "x-api-key", "X-API-KEY", "x-Api-kEy"])
@pytest.mark.parametrize("prefix", ["/api/v1", "/_/api/v1"])
def test_keys_and_prefixes_that_are_accepted(name: str, prefix: str) -> None:
    """Any key that starts with `sandbox-` opens both prefixes, in any spelling of the header's name."""
    sandbox = fixed()
    sandbox.add_user("u")
    for key in ("sandbox-test", "sandbox-x"):
        status, content_type, body = ask(sandbox, f"{prefix}/inventory/u", headers={name: key})
        assert (status, json.loads(body)) == (200, {"user_id": "u", "items": []})
        assert content_type.startswith("application/json")


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8765", "http://[::1]:1", "https://partner.example"])
def test_any_host_is_answered(origin: str) -> None:
    """The sandbox looks at the path, not at the host."""
    sandbox = fixed()
    sandbox.add_user("u")
    response = sandbox(Request("GET", f"{origin}/_/api/v1/inventory/u", {"x-api-key": "sandbox-1"}))
    assert response.status == 200


@pytest.mark.parametrize("user_id", ["nobody", "U", "u ", "u%00"])
def test_unknown_users(user_id: str) -> None:
    """A user who was never added gives the documented 404."""
    sandbox = fixed()
    sandbox.add_user("u")
    status, content_type, body = ask(sandbox, f"/_/api/v1/inventory/{quote(user_id, safe='%')}")
    assert (status, json.loads(body)) == (404, {"error": "User not found"})
    assert content_type.startswith("application/json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_/api/v1/inventory/"),
        ("GET", "/_/api/v1/inventory"),
        ("GET", "/api/v1/inventory/"),
        ("GET", "/_/api/v1/inventory/u/items"),
        ("GET", "/_/api/v1/inventory/a/b"),
        ("POST", "/_/api/v1/inventory/u"),
        ("DELETE", "/_/api/v1/inventory/u"),
        ("GET", "/_/api/v1/Inventory/u"),
        ("GET", "/_/api/v1/inventories/u"),
        ("GET", "/_/api/v1/"),
        ("GET", "/_/api/v1"),
        ("GET", "/_/api/v2/inventory/u"),
        ("GET", "/_/inventory/u"),
        ("GET", "/inventory/u"),
        ("GET", "/_/_/api/v1/inventory/u"),
        ("GET", "/x/api/v1/inventory/u"),
        ("GET", "/api/v1/api/v1/inventory/u"),
        ("GET", "/"),
        ("GET", ""),
    ],
)
def test_routes_that_do_not_exist(method: str, path: str) -> None:
    """An omitted user id, and any other path, gives the server's default 404, which is no JSON."""
    sandbox = fixed()
    sandbox.add_user("u")
    sandbox.add_user("a/b")
    status, content_type, body = ask(sandbox, path, method=method)
    assert status == 404
    assert content_type.startswith("text/html")
    assert b"<html>" in body
    assert b"error" not in body


@pytest.mark.parametrize(
    "user_id", ["a/b", "a b", "v1|1|0", "%2e%2e", "%", "a?b", "a#b", "a+b", "é", "🃏", "...", "x" * 4096, "inventory"]
)
def test_ids_of_all_kinds(user_id: str) -> None:
    """A percent-encoded id names the user it encodes, once decoded, and is echoed."""
    sandbox = fixed()
    item = sandbox.add_item(user_id, name="Card", buyback_price=Decimal(1))
    assert inventory(sandbox, user_id) == Inventory(user_id, (item,))


def test_a_query_is_not_part_of_the_id() -> None:
    """A query after the path changes nothing."""
    sandbox = fixed()
    sandbox.add_user("u")
    assert ask(sandbox, "/_/api/v1/inventory/u?x=1")[0] == 200


# ---------------------------------------------------------------------------------------------------------
# Items


def test_an_item_as_documented() -> None:
    """With the values of the documented example, the answer is the documented example."""
    documented = fixture_json("inventory.json")
    (expected,) = documented["items"]
    metadata = expected["content"]["metadata"]
    sandbox = Sandbox(clock=lambda: datetime.fromisoformat(expected["purchased_at"]))
    sandbox.add_item(
        documented["user_id"],
        id=expected["id"],
        type=None,
        claw_id=expected["claw_id"],
        claw_slug=expected["claw_slug"],
        name=metadata["name"],
        buyback_price=Decimal(str(expected["buyback_price"])),
        image=metadata["image"],
        back_image=metadata["back_image"],
        attributes=tuple(Attribute(a["trait_type"], a["value"]) for a in metadata["attributes"]),
    )
    _, _, body = ask(sandbox, f"/_/api/v1/inventory/{documented['user_id']}")
    (item,) = json.loads(body)["items"]
    assert {**item, "content": None} == {**with_nulls(expected), "content": None}
    assert item["content"]["metadata"] == metadata
    assert set(item["content"]["links"]) == set(expected["content"]["links"])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"buyback_price": Decimal("8.50")},
        {"buyback_price": Decimal("0.10")},
        {"buyback_price": Decimal("12.345")},
        {"buyback_price": Decimal("100000000.01")},
        {"buyback_price": Decimal(0)},
        {"id": "v1|1|0"},
        {"id": "a/b %2e"},
        {"type": ItemSource.EBAY},
        {"type": ItemSource.EBAY, "id": "v1|110586049456|0"},
        {"type": ItemSource("consignment")},
        {"type": None},
        {"claw_id": "pack", "claw_slug": None},
        {"back_image": None},
        {"image": ""},
        {"attributes": (Attribute("Year", "2024"), Attribute("Year", 2024), Attribute("Score", 9.5))},
        {"purchased_at": NOW - timedelta(days=30)},
        {"purchased_at": NOW + timedelta(microseconds=123456)},
        {"name": 'Kylian Mbappé 🃏 "quoted" \\ <b>'},
    ],
    ids=lambda given: ",".join(f"{name}={value}" for name, value in given.items()) or "defaults",
)
def test_add_item_returns_what_inventory_shows(given: dict[str, Any]) -> None:
    """The returned Item equals the one that inventory shows, and holds what was given."""
    sandbox = fixed()
    values: dict[str, Any] = {"name": "Juan Soto RC Auto /25", "buyback_price": Decimal(5), **given}
    item = sandbox.add_item("u", **values)
    assert inventory(sandbox, "u").items == (item,)
    for name in ("id", "name", "buyback_price", "type", "claw_id", "claw_slug", "image", "purchased_at"):
        if name in given:
            assert getattr(item, name) == given[name]
    assert item.content.metadata.attributes == given.get("attributes", ())
    if "back_image" in given:
        assert item.content.metadata.back_image == given["back_image"]
    assert item.content.links is not None
    assert (item.content.links.image, item.content.links.back_image) == (
        item.content.metadata.image,
        item.content.metadata.back_image,
    )


@pytest.mark.parametrize("source", [*ItemSource, ItemSource("consignment"), None])
def test_ids_that_are_invented(source: ItemSource | None) -> None:
    """An eBay item has a listing id and no mint address (S11); any other has a base58 address as its id."""
    sandbox = fixed()
    items = [sandbox.add_item("u", name="Card", buyback_price=Decimal(1), type=source) for _ in range(20)]
    assert len({item.id for item in items}) == 20
    for item in items:
        assert item.type == source
        if source == ItemSource.EBAY:
            version, number, variant = item.id.split("|")
            assert (version, variant) == ("v1", "0")
            assert number.isdecimal()
            assert len(number) == 12
            assert item.mint_address is None
        else:
            assert 32 <= len(item.id) <= 44
            assert set(item.id) <= BASE58
            assert item.mint_address == item.id


def test_an_ebay_item_never_has_a_mint_address() -> None:
    """Neither does an eBay item with an id of one's own; the field is there, and null."""
    sandbox = fixed()
    sandbox.add_item("u", name="Card", buyback_price=Decimal(1), type=ItemSource.EBAY, id="mint")
    (item,) = json.loads(ask(sandbox, "/api/v1/inventory/u")[2])["items"]
    assert item["mint_address"] is None
    assert item["id"] == "mint"


def test_times_come_from_the_clock() -> None:
    """An item is pulled now, by the injected clock, and its window is 7 days (S14), written in milliseconds, UTC."""
    times = [NOW]
    sandbox = Sandbox(clock=lambda: times[-1])
    first = sandbox.add_item("u", name="1", buyback_price=Decimal(1))
    times.append(NOW + timedelta(hours=1))
    second = sandbox.add_item("u", name="2", buyback_price=Decimal(1))
    assert (first.purchased_at, first.buyback_expires_at) == (NOW, NOW + WEEK)
    assert (second.purchased_at, second.buyback_expires_at) == (
        NOW + timedelta(hours=1),
        NOW + timedelta(hours=1) + WEEK,
    )
    items = json.loads(ask(sandbox, "/api/v1/inventory/u")[2])["items"]
    assert items[0]["purchased_at"] == "2026-04-18T19:05:14.000Z"
    assert items[0]["buyback_expires_at"] == "2026-04-25T19:05:14.000Z"


def test_the_window_counts_from_the_pull() -> None:
    """An item pulled at another time expires 7 days after that; expired, it is still owned."""
    sandbox = fixed()
    pulled = NOW - timedelta(days=30)
    item = sandbox.add_item("u", name="Old", buyback_price=Decimal(1), purchased_at=pulled)
    assert item.buyback_expires_at == pulled + WEEK
    assert not item.sellback_open(NOW)
    assert inventory(sandbox, "u").items == (item,)


@pytest.mark.parametrize("moment", [NOW.replace(tzinfo=None), NOW.astimezone(timezone(timedelta(hours=2)))])
def test_times_must_be_utc(moment: datetime) -> None:
    """A naive time, or one of another zone, is refused where it is given, and nothing is added."""
    sandbox = fixed()
    with pytest.raises(ValueError, match="UTC"):
        sandbox.add_item("u", name="Card", buyback_price=Decimal(1), purchased_at=moment)
    assert ask(sandbox, "/api/v1/inventory/u")[0] == 404


def test_the_clock_by_default() -> None:
    """Unless another is injected the clock is the machine's, in whole milliseconds of UTC."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    item = Sandbox().add_item("u", name="Card", buyback_price=Decimal(1))
    after = datetime.now(UTC)
    assert before < item.purchased_at <= after
    assert item.purchased_at.microsecond % 1000 == 0
    assert item.purchased_at.tzinfo is UTC


def test_any_clock_is_cut_to_milliseconds() -> None:
    """Whatever the clock gives, and by whatever it is advanced, a time has no more digits than the API writes."""
    sandbox = Sandbox(clock=lambda: NOW + timedelta(microseconds=123_999))
    assert sandbox.now() == NOW + timedelta(milliseconds=123)
    item = sandbox.add_item("u", name="Card", buyback_price=Decimal(1))
    assert (item.purchased_at, item.buyback_expires_at) == (sandbox.now(), sandbox.now() + WEEK)
    assert json.loads(ask(sandbox, "/api/v1/inventory/u")[2])["items"][0]["purchased_at"].endswith(".123Z")
    # What is cut is not lost.
    sandbox.advance(timedelta(microseconds=1))
    assert sandbox.now() == NOW + timedelta(milliseconds=124)


@pytest.mark.parametrize("price", [8.5, 8, "8.50", None, True], ids=repr)
def test_a_price_is_a_decimal(price: Any) -> None:
    """Any other number is refused where it is given, in words that say what to give instead, and nothing is added."""
    sandbox = fixed()
    with pytest.raises(TypeError) as caught:
        sandbox.add_item("u", name="Card", buyback_price=price)
    kind = type(price).__name__
    assert str(caught.value) == f"buyback_price must be a Decimal, such as Decimal('8.50'), not {kind}"
    assert ask(sandbox, "/api/v1/inventory/u")[0] == 404


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_items_slug_is_its_packs(number: int) -> None:
    """Unless one is given, or None is, the slug is that of the pack, which is the first where none is named."""
    sandbox = fixed()
    pack = sandbox.packs[number]

    def slug(**given: Any) -> str | None:
        return sandbox.add_item("u", name="Card", buyback_price=Decimal(1), **given).claw_slug

    assert pack.slug is not None
    assert slug(claw_id=pack.id) == pack.slug
    assert slug(claw_id=pack.id, claw_slug=None) is None
    assert slug(claw_id=pack.id, claw_slug="other") == "other"
    assert slug() == sandbox.packs[0].slug
    assert slug(claw_id="unknown") is None
    sandbox.add_pack(attrs.evolve(pack, slug="renamed"))
    assert slug(claw_id=pack.id) == "renamed"


def test_a_seed_repeats() -> None:
    """The same seed invents the same items, to the byte; another seed, or none, others."""

    def build(seed: int | None) -> bytes:
        sandbox = Sandbox(clock=lambda: NOW, seed=seed)
        for source in ItemSource:
            sandbox.add_item("u", name="Card", buyback_price=Decimal(1), type=source, claw_id="pack")
        return ask(sandbox, "/api/v1/inventory/u")[2]

    assert build(7) == build(7)
    assert len({build(7), build(8), build(None), build(None)}) == 4


def test_users_are_apart() -> None:
    """Each user sees the own items, in the order they came; adding a known user changes nothing."""
    sandbox = fixed()
    mine = tuple(sandbox.add_item("me", name=str(number), buyback_price=Decimal(number)) for number in range(5))
    yours = sandbox.add_item("you", name="you", buyback_price=Decimal(1))
    sandbox.add_user("me")
    sandbox.add_user("empty")
    assert inventory(sandbox, "me") == Inventory("me", mine)
    assert inventory(sandbox, "you").items == (yours,)
    assert inventory(sandbox, "empty").items == ()
    assert sum(item.buyback_price for item in inventory(sandbox, "me").items) == 10


def test_put_item_shows_exactly_that_item() -> None:
    """An item that only production would show is shown as it was put."""
    sandbox = fixed()
    item = Item(
        id="mint",
        claw_id="pack",
        claw_slug=None,
        buyback_price=Decimal("1.50"),
        mint_address=None,
        purchased_at=NOW,
        buyback_expires_at=None,
        content=fixed().add_item("u", name="Card", buyback_price=Decimal(1)).content,
        type=ItemSource("consignment"),
        collection_address="collection",
        token_standard="pNFT",
    )
    sandbox.put_item("new user", item)
    assert inventory(sandbox, "new user").items == (item,)


@pytest.mark.anyio
async def test_the_example_of_the_readme() -> None:
    """A sandbox in memory answers a client, as the documentation shows it."""
    sandbox = Sandbox()
    item = sandbox.add_item("user_abc123", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    transport = MemoryTransport(sandbox)
    async with PhygitalsClient(transport, api_key="sandbox-test") as api:
        assert await api.get_inventory("user_abc123") == Inventory("user_abc123", (item,))
    assert [request.url for request in transport.sent] == [f"{ORIGIN}/_/api/v1/inventory/user_abc123"]


# ---------------------------------------------------------------------------------------------------------
# Population


@pytest.fixture(scope="module")
def crowd() -> list[Inventory]:
    """Give the inventories of 300 users."""
    sandbox = fixed()
    populate(sandbox, 300, seed=3)
    return [inventory(sandbox, user_name(number)) for number in range(300)]


def test_population_size(crowd: list[Inventory]) -> None:
    """Users own from no items up to 60, and none an item twice."""
    sizes = Counter(len(user.items) for user in crowd)
    assert (min(sizes), max(sizes)) == (0, MOST_ITEMS)
    assert MOST_ITEMS == 60
    assert len(sizes) > 50
    for user in crowd:
        assert len({item.id for item in user.items}) == len(user.items)


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("each source", lambda item: item.type),
        ("claw_slug", lambda item: item.claw_slug),
        ("mint_address", lambda item: item.mint_address is None),
        ("buyback_expires_at", lambda item: item.buyback_expires_at is None),
        ("back_image", lambda item: item.content.metadata.back_image is None),
        ("link's back_image", lambda item: item.content.links.back_image is None),
        ("attributes", lambda item: len(item.content.metadata.attributes)),
        ("attribute values", lambda item: frozenset(type(a.value) for a in item.content.metadata.attributes)),
    ],
)
def test_population_has_every_shape(crowd: list[Inventory], name: str, look: Callable[[Item], object]) -> None:
    """Whatever the documents allow to differ or to be null does, somewhere."""
    seen = {look(item) for user in crowd for item in user.items}
    if name == "each source":
        assert seen == set(ItemSource)
        assert len(seen) == 5
    else:
        assert len(seen) > 1


def test_population_obeys_the_rules(crowd: list[Inventory]) -> None:
    """Prices are whole cents of some size, ids fit their source, and windows are 7 days or endless."""
    for item in (item for user in crowd for item in user.items):
        assert item.buyback_price >= Decimal("0.50")
        assert item.buyback_price == item.buyback_price.quantize(Decimal("0.01"))
        assert (item.mint_address is None) == (item.type == ItemSource.EBAY)
        assert item.id.startswith("v1|") == (item.type == ItemSource.EBAY)
        assert item.buyback_expires_at in (None, item.purchased_at + WEEK)
        assert item.name.strip()


def test_population_comes_from_the_packs(crowd: list[Inventory]) -> None:
    """Every pack is some item's, under its id and its slug."""
    packs = {(pack.id, pack.slug) for pack in fixed().packs}
    assert {(item.claw_id, item.claw_slug) for user in crowd for item in user.items} == packs
    assert len(packs) == 3


def test_population_has_some_offers_without_an_end(crowd: list[Inventory]) -> None:
    """About one in twenty, as only production has them."""
    endless = [item.buyback_expires_at is None for user in crowd for item in user.items]
    assert 0.03 < sum(endless) / len(endless) < 0.07


def test_population_lives_in_the_sandboxs_time(crowd: list[Inventory]) -> None:
    """Items were pulled within the last 7 days of the sandbox's own clock, none in its future."""
    for item in (item for user in crowd for item in user.items):
        assert NOW - WEEK <= item.purchased_at <= NOW


def test_population_repeats() -> None:
    """The same seed gives the same items, to the byte; another seed others."""

    def build(seed: int) -> list[bytes]:
        sandbox = fixed()
        populate(sandbox, 20, seed=seed)
        return [ask(sandbox, f"/api/v1/inventory/{user_name(number)}")[2] for number in range(20)]

    assert build(1) == build(1)
    assert build(1) != build(2)


def test_population_names() -> None:
    """The users are numbered from 0, and there are as many as asked for."""
    sandbox = fixed()
    populate(sandbox, 2)
    assert [user_name(number) for number in (0, 1, 123456)] == ["user_000000", "user_000001", "user_123456"]
    assert [ask(sandbox, f"/api/v1/inventory/{user_name(number)}")[0] for number in range(3)] == [200, 200, 404]
    empty = fixed()
    populate(empty, 0)
    assert ask(empty, f"/api/v1/inventory/{user_name(0)}")[0] == 404
