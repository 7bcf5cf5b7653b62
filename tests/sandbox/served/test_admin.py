"""The admin API."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from phygitals_async.sandbox import SandboxOptions
from phygitals_async.sandbox.options import RateLimit
from phygitals_async.sandbox.served import MovableClock, ServedSandbox
from phygitals_async.sandbox.served.routes import ROUTES
from sandbox_support import NOW
from served_support import Client, client
from support import ROOT, script

pytestmark = pytest.mark.asyncio


async def done(call: Any, status: int = 200) -> Any:
    """Expect that something went well, and return what was answered."""
    found, answer = await call
    assert found == status, answer
    return answer


async def refused(call: Any, status: int, error: str) -> None:
    """Expect a refusal whose text holds this."""
    found, answer = await call
    assert found == status, answer
    assert list(answer) == ["error"]
    assert error in answer["error"]


# ---------------------------------------------------------------------------------------------------------
# The document


async def test_the_document_is_up_to_date() -> None:
    """The file is what the script would write now: run `make openapi` after a change of the routes."""
    build = script("build_sandbox_admin")
    assert (ROOT / "docs" / "sandbox-admin.json").read_text() == build.document()
    OpenAPIV31SpecValidator(json.loads(build.document())).validate()


async def test_the_answers_are_as_the_document_says(browser: Client) -> None:
    """Every route answers what its schema describes."""
    document = json.loads((ROOT / "docs" / "sandbox-admin.json").read_text())
    await busy(browser)
    bodies: dict[str, Any] = {
        "add_user": {"user_id": "new"},
        "add_item": {"name": "Card", "buyback_price": "8.50"},
        "set_options": {"pending_polls": 1},
        "set_clock": {"advance": 1.5},
        "add_fault": {"kind": "latency"},
        "seed": {"users": 1},
    }
    filled = {"{user_id}": "user_000001", "{name}": "kept", "{number}": "1"}
    # One must be there to be removed.
    await browser.admin("POST", "/faults", {"kind": "latency", "times": None})
    await browser.admin("PUT", "/snapshots/kept")
    order = sorted(ROUTES, key=lambda route: (route.name.startswith("remove_"), -len(route.path)))
    for route in order:
        path = route.path
        for name, value in filled.items():
            path = path.replace(name, value)
        answer = await done(
            browser.admin(route.method, path.removeprefix("/_admin"), bodies.get(route.name)), route.status
        )
        described = document["paths"][route.path][route.method.lower()]
        schema = described["responses"][str(route.status)]["content"]["application/json"]["schema"]
        # Its components stand where the references of a document lead.
        jsonschema_rs.validate({**schema, "components": document["components"]}, answer)


async def busy(browser: Client) -> tuple[str, str]:
    """Buy, sell and ship; return what was sold, and the order."""
    pack = next(pack for pack in browser.served.sandbox.packs if pack.purchasable and pack.max_per_mint > 2)
    bought = await done(browser.api("POST", "/vm/buy/init", {"id": pack.id, "amount": 2, "user_id": "buyer"}))
    sold, shipped = (item["id"] for item in bought["nfts"])
    await done(browser.api("POST", "/vm/buyback", {"item_id": sold}))
    home = {"name": "Jane Doe", "city": "Austin", "country": "US"}
    quotes = await done(browser.api("POST", "/ship/quote", {"item_ids": [shipped], "destination": home}))
    order = await done(browser.api("POST", "/ship/request", {"quote_id": quotes["quotes"][0]["id"]}))
    return sold, order["order_id"]


# ---------------------------------------------------------------------------------------------------------
# What there is


async def test_the_state(browser: Client) -> None:
    """It counts everything."""
    state = await done(browser.admin("GET", "/state"))
    assert (state["users"], state["packs"], state["snapshots"]) == (3, 124, ["start"])
    assert state["clock"] == {"now": "2026-04-18T19:05:14Z", "frozen": False}
    await busy(browser)
    later = await done(browser.admin("GET", "/state"))
    assert [later[name] for name in ("users", "purchases", "sellbacks", "orders", "requests")] == [4, 1, 1, 1, 4]
    assert later["items"] == state["items"]


async def test_users_and_items(browser: Client) -> None:
    """Users can be added, listed a page at a time and searched for, and given items."""
    assert (await done(browser.admin("POST", "/users", {"user_id": "a/b"}), 201))["items"] == 0
    new = {
        "name": "Juan Soto", "buyback_price": 8.5, "type": "ebay", "id": "v1|1|0", "claw_id": "other",
        "purchased_at": "2026-04-01T00:00:00+02:00", "attributes": [{"trait_type": "Year", "value": 2024}],
    }  # fmt: skip
    item = await done(browser.admin("POST", "/users/a%2Fb/items", new), 201)
    assert (item["id"], item["mint_address"], item["purchased_at"]) == ("v1|1|0", None, "2026-03-31T22:00:00.000Z")
    assert item["content"]["metadata"]["attributes"] == [{"trait_type": "Year", "value": 2024}]
    assert item["buyback_price"] == 8.5
    assert await done(browser.admin("GET", "/users/a%2Fb/items")) == [item]
    assert (await browser.api("POST", "/vm/buyback", {"item_id": "v1|1|0"})) == (400, {"error": "Item has expired"})
    assert await done(browser.admin("GET", "/users?search=/")) == [{"user_id": "a/b", "items": 1, "value": "8.5"}]
    rows = await done(browser.admin("GET", "/users?start=1&limit=2"))
    assert [row["user_id"] for row in rows] == ["user_000001", "user_000002"]
    plain = await done(browser.admin("POST", "/users/b/items", {"name": "x", "buyback_price": "1", "type": None}), 201)
    assert plain["type"] is None
    await refused(browser.admin("GET", "/users/nobody/items"), 404, "User not found")


async def test_some_items_have_expired_from_the_start() -> None:
    """About one in sixteen, so that an application meets it."""
    sandbox = client(users=30).served.sandbox
    items = [holding.item for owned in sandbox.ledger.users.values() for holding in owned]
    over = sum(not item.sellback_open(NOW) for item in items)
    assert 0.02 < over / len(items) < 0.12


@pytest.mark.parametrize("options", [SandboxOptions(pending_polls=1), SandboxOptions(fail_purchases=True), None])
async def test_what_became_of_users_and_items(browser: Client, options: SandboxOptions | None) -> None:
    """Purchases, sellbacks and orders are listed, the latest first, and searched for by user."""
    sold, order = await busy(browser)
    (sellback,) = await done(browser.admin("GET", "/sellbacks?search=buy"))
    assert (sellback["item_id"], sellback["user_id"], sellback["sold_at"]) == (sold, "buyer", "2026-04-18T19:05:14Z")
    (shown,) = await done(browser.admin("GET", "/orders?search=buy"))
    assert (shown["order_id"], shown["status"], shown["destination"]["city"]) == (order, "queued", "Austin")
    for path in ("/sellbacks", "/orders", "/purchases"):
        assert await done(browser.admin("GET", f"{path}?search=nobody")) == []
    browser.served.sandbox.options = options or SandboxOptions()
    pack = next(pack for pack in browser.served.sandbox.packs if pack.purchasable)
    await done(browser.api("POST", "/vm/buy/init", {"id": pack.id, "amount": 1, "user_id": "second"}))
    latest, first = await done(browser.admin("GET", "/purchases"))
    assert (first["user_id"], first["status"], len(first["item_ids"])) == ("buyer", "fulfilled", 2)
    expected = "fulfilled" if options is None else "pending" if options.pending_polls else "failed"
    assert (latest["user_id"], latest["pack_id"], latest["status"]) == ("second", pack.id, expected)


# ---------------------------------------------------------------------------------------------------------
# What can be switched


async def test_options(browser: Client) -> None:
    """Those that are named change, and the others stay; null is none."""
    changed = await done(
        browser.admin(
            "PATCH", "/options",
            {
                "pending_polls": 2, "price_factor": "0.5", "order_stage": 90, "countries": ["US"], "unshippable": ["x"],
                "suggestion": {"zip": "78701"}, "rate_limit": {"per_second": 5, "retry_after": False}, "strict": True,
            },
        )
    )  # fmt: skip
    options = browser.served.sandbox.options
    assert options.order_stage == timedelta(seconds=90)
    assert (options.countries, options.unshippable) == (frozenset({"US"}), {"x"})
    assert options.rate_limit == RateLimit(5, retry_after=False)
    assert changed == await done(browser.admin("GET", "/options"))
    assert changed["rate_limit"] == {"per_second": 5.0, "burst": 5.0, "retry_after": False}
    again = await done(
        browser.admin("PATCH", "/options", {"order_stage": None, "rate_limit": {"per_second": 2, "burst": 9}})
    )
    assert (again["order_stage"], again["rate_limit"]["burst"], again["pending_polls"]) == (None, 9, 2)
    await done(browser.admin("PATCH", "/options", {"rate_limit": None, "countries": None, "suggestion": None}))
    assert browser.served.sandbox.options.rate_limit is None
    await done(browser.admin("DELETE", "/options"))
    assert browser.served.sandbox.options == SandboxOptions()


async def test_the_clock(browser: Client) -> None:
    """It can be set, moved ahead, stopped and let go on."""
    sandbox = browser.served.sandbox
    assert (await done(browser.admin("PATCH", "/clock", {"advance": 3600})))["now"] == "2026-04-18T20:05:14Z"
    assert sandbox.now() == NOW + timedelta(hours=1)
    there = {"at": "2026-05-01T00:00:00Z", "advance": 1, "frozen": True}
    assert await done(browser.admin("PATCH", "/clock", there)) == {"now": "2026-05-01T00:00:01Z", "frozen": True}
    assert (await done(browser.admin("PATCH", "/clock", {"advance": 1})))["frozen"] is True
    gone_on = await done(browser.admin("PATCH", "/clock", {"frozen": False}))
    assert gone_on == {"now": "2026-05-01T00:00:02Z", "frozen": False}
    assert await done(browser.admin("GET", "/clock")) == gone_on


async def test_a_rate_limit_goes_by_time_that_passes() -> None:
    """A clock that stands still, or is moved back or ahead, neither locks clients out nor lets them in."""
    passed = timedelta(0)
    browser = Client(ServedSandbox(users=1, clock=MovableClock(lambda: NOW + passed)))
    await done(browser.admin("PATCH", "/options", {"rate_limit": {"per_second": 1, "burst": 1}}))
    moves: list[dict[str, Any]] = [{"frozen": True}, {"at": "2026-04-01T00:00:00Z"}, {"advance": 3600}]
    for move in moves:
        assert (await browser.api("GET", "/inventory/user_000000"))[0] == 200
        await done(browser.admin("PATCH", "/clock", move))
        assert (await browser.api("GET", "/inventory/user_000000"))[0] == 429
        passed += timedelta(seconds=1)


async def test_time_that_passed_since_a_snapshot_stays_passed() -> None:
    """Going back undoes what was done to the clock; a sandbox behind the real time would sell cards of the past."""
    passed = timedelta(0)
    browser = Client(ServedSandbox(clock=MovableClock(lambda: NOW + passed)))
    await done(browser.admin("PATCH", "/clock", {"advance": 60}))
    await done(browser.admin("PUT", "/snapshots/a"))
    for frozen in (False, True):
        await done(browser.admin("PATCH", "/clock", {"advance": 7 * 24 * 3600, "frozen": frozen}))
        passed += timedelta(hours=1)
        for name, ahead in (("a", timedelta(minutes=1)), ("start", timedelta(0))):
            await done(browser.admin("POST", f"/snapshots/{name}/restore"))
            assert browser.served.sandbox.now() == NOW + passed + ahead


async def test_snapshots(browser: Client) -> None:
    """What is there is kept under a name, and comes back with its time and its faults; `start` is always there."""
    await done(browser.admin("PATCH", "/clock", {"frozen": True}))
    await done(browser.admin("POST", "/faults", {"kind": "edge", "times": 3}), 201)
    kept = await done(browser.admin("PUT", "/snapshots/before%20it"))
    assert kept == {"name": "before it", "at": "2026-04-18T19:05:14Z", "users": 3}
    await done(browser.admin("DELETE", "/faults"))
    await done(browser.admin("POST", "/wipe"))
    await done(browser.admin("PATCH", "/clock", {"advance": 60, "frozen": False}))
    assert (await done(browser.admin("GET", "/state")))["users"] == 0
    await done(browser.admin("POST", "/seed", {"users": 5, "seed": 2}))
    assert (await done(browser.admin("GET", "/state")))["users"] == 5
    await done(browser.admin("POST", "/snapshots/before%20it/restore"))
    state = await done(browser.admin("GET", "/state"))
    assert (state["users"], state["faults"]) == (3, 1)
    assert state["clock"] == {"now": "2026-04-18T19:05:14Z", "frozen": True}
    await done(browser.admin("POST", "/snapshots/start/restore"))
    state = await done(browser.admin("GET", "/state"))
    assert (state["faults"], state["clock"]["frozen"]) == (0, False)
    assert [each["name"] for each in await done(browser.admin("GET", "/snapshots"))] == ["start", "before it"]
    await done(browser.admin("DELETE", "/snapshots/before%20it"))
    await refused(browser.admin("POST", "/snapshots/before%20it/restore"), 404, "No such snapshot")
    await refused(browser.admin("DELETE", "/snapshots/before%20it"), 404, "No such snapshot")


# ---------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/users", {}, "user_id"),
        ("POST", "/users", {"user_id": ""}, "length >= 1"),
        ("POST", "/users", {"user_id": "u", "other": 1}, "other"),
        ("POST", "/users", None, "truncated"),
        *(
            (
                "POST",
                "/users/u/items",
                {"name": "x", "buyback_price": price},
                "buyback_price must be 0 to 1,000,000,000",
            )
            for price in (
                1e20,
                -0.01,
                "sNaN",
                "NaN",
                "-Infinity",
                "1e999999999999",
                "1e-999999999999",
                "0.0000000000001",
            )
        ),
        ("POST", "/users/u/items", {"name": "x", "buyback_price": "1e99999999999999999999"}, "decimal"),
        ("POST", "/users/u/items", {"name": "", "buyback_price": 1, "type": "x" * 9}, "length >= 1"),
        (
            "POST",
            "/users/u/items",
            {"name": "x", "buyback_price": 1, "attributes": [{"trait_type": "Year", "value": 10**400}]},
            "<= 9007199254740992",
        ),
        (
            "POST",
            "/users/u/items",
            {"name": "x", "buyback_price": 1, "purchased_at": "2026-04-01T00:00:00"},
            "timezone",
        ),
        ("POST", "/users/u/items", {"name": "x", "buyback_price": 1, "purchased_at": "9999-12-31T00:00:00Z"}, "range"),
        ("PATCH", "/options", {"pending_polls": -1}, ">= 0"),
        ("PATCH", "/options", {"rate_limit": {"per_second": 0}}, ">= 0.001"),
        ("PATCH", "/options", {"order_stage": 0}, "> 0.0"),
        ("PATCH", "/options", {"order_stage": 1e300}, "<= 1000000000"),
        *(
            ("PATCH", "/options", {"price_factor": factor}, "price_factor must be 0 to 1,000")
            for factor in ("-1", "NaN", "sNaN", 1001, "1e-999999999999")
        ),
        ("PATCH", "/options", {"pending_polls": 10**30}, "<= 1000000000"),
        ("PATCH", "/options", {"rate_limit": {"per_second": 1e-320}}, ">= 0.001"),
        ("PATCH", "/options", {"rate_limit": {"per_second": 1, "burst": 1e300}}, "<= 1000000000"),
        ("PATCH", "/clock", {"advance": -1}, ">= 0"),
        ("PATCH", "/clock", {"advance": 1e12}, "<= 10000000000"),
        ("PATCH", "/clock", {"at": "0001-01-01T00:00:00+14:00"}, "range"),
        ("PATCH", "/clock", {"at": "2026-05-01T00:00:00"}, "timezone"),
        ("PATCH", "/clock", {"at": "9500-05-01T00:00:00Z"}, "the year must be 2000 to 8999"),
        ("GET", "/users?limit=0", None, ">= 1"),
        ("GET", "/users?limit=x", None, "int"),
        *(
            ("GET", f"/{path}=99999999999999999999", None, "<= 1000000000")
            for path in (
                "users?start",
                "purchases?start",
                "sellbacks?start",
                "orders?start",
                "requests?after",
            )
        ),
        ("POST", "/seed", {"users": 1, "seed": 10**30}, "<= 9007199254740992"),
        ("POST", "/faults", {"kind": "lost", "times": 10**30}, "<= 1000000000"),
        ("POST", "/faults", {"kind": "status", "status": 10**30}, "<= 599"),
        ("POST", "/faults", {"kind": "nonsense"}, "nonsense"),
        ("POST", "/faults", {"kind": "lost", "operation": "sell"}, "operation must be one of list_packs, "),
        ("POST", "/faults", {"kind": "edge", "after": True}, "an edge answers before"),
    ],
)
async def test_what_makes_no_sense(browser: Client, method: str, path: str, body: object, error: str) -> None:
    """It is a 400 that says what is wrong, and changes nothing."""
    before = await done(browser.admin("GET", "/state"))
    await refused(browser.admin(method, path, body), 400, error)
    assert await done(browser.admin("GET", "/state")) == before


async def test_the_same_item_twice(browser: Client) -> None:
    """Nobody owns two of one id; where two users do, each sellback takes one: the older, for its own price."""
    for user, price, status in (("ann", "1.50", 201), ("ann", "9", 409), ("bob", "2.50", 201), ("bob", "9", 409)):
        new = {"id": "dup", "name": "Card", "buyback_price": price}
        found, answer = await browser.admin("POST", f"/users/{user}/items", new)
        assert found == status, answer
    owned = {"ann": ["dup"], "bob": ["dup"]}
    for user, amount in (("ann", 1.5), ("bob", 2.5)):
        sold = await done(browser.api("POST", "/vm/buyback", {"item_id": "dup"}))
        assert sold["amount"] == amount
        owned[user] = []
        for each, ids in owned.items():
            assert [item["id"] for item in await done(browser.admin("GET", f"/users/{each}/items"))] == ids
    await refused(browser.api("POST", "/vm/buyback", {"item_id": "dup"}), 400, "Item not found")
    assert [row["user_id"] for row in await done(browser.admin("GET", "/sellbacks"))] == ["bob", "ann"]
    # It is gone, so it can be given again.
    await done(browser.admin("POST", "/users/ann/items", {"id": "dup", "name": "Card", "buyback_price": 1}), 201)


async def test_seeding_holds_nobody_up(browser: Client) -> None:
    """Requests are answered while users are added; what goes back meanwhile ends it."""
    seeding = asyncio.create_task(browser.admin("POST", "/seed", {"users": 200}))
    seen: set[int] = set()
    while not seeding.done():
        await asyncio.sleep(0)
        assert (await browser.api("GET", "/inventory/user_000000"))[0] == 200
        seen.add((await done(browser.admin("GET", "/state")))["users"])
    assert await seeding == (200, {"done": True})
    assert len(seen) > 100
    seeding = asyncio.create_task(browser.admin("POST", "/seed", {"users": 200}))
    await asyncio.sleep(0)
    await done(browser.admin("POST", "/snapshots/start/restore"))
    await refused(seeding, 409, "went back to a snapshot")
    assert (await done(browser.admin("GET", "/state")))["users"] == 3


async def test_the_start_stays(browser: Client) -> None:
    """A reset goes back to it, whatever was done to it."""
    await done(browser.admin("POST", "/wipe"))
    await refused(browser.admin("PUT", "/snapshots/start"), 409, "take another name")
    await refused(browser.admin("DELETE", "/snapshots/start"), 409, "so it stays")
    await done(browser.admin("POST", "/snapshots/start/restore"))
    assert (await done(browser.admin("GET", "/state")))["users"] == 3


async def test_bodies_that_are_no_json(browser: Client) -> None:
    """They are a 400 too."""
    for body in (b"{", b'{"user_id": "\xff"}', b"[" * 20_000):
        answer = await browser.send("POST", "/_admin/users", body)
        assert answer.status == 400


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("POST", "/state/more"), ("HEAD", "/users/1")])
async def test_unknown_routes(browser: Client, method: str, path: str) -> None:
    """They are a 404."""
    await refused(browser.admin(method, path), 404, f"No such route: {method} /_admin{path}")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/state", "GET"),
        ("GET", "/faults/1", "DELETE"),
        ("HEAD", "/wipe", "POST"),
        ("PUT", "/users", "GET, POST"),
    ],
)
async def test_other_methods(browser: Client, method: str, path: str, allowed: str) -> None:
    """They are a 405 that names those there are; HEAD is answered as GET is."""
    answer = await browser.send(method, f"/_admin{path}")
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert json.loads(answer.body) == {"error": f"/_admin{path} takes {allowed} only"}
    assert (await browser.send("HEAD", "/_admin/state")).status == 200


async def test_strict(browser: Client) -> None:
    """Where production is, a key of the sandbox is unknown; below `/_` nothing changes."""
    headers = {"X-API-Key": "sandbox-test"}
    for is_strict in (False, True):
        await done(browser.admin("PATCH", "/options", {"strict": is_strict}))
        answer = await browser.send("GET", "/api/v1/inventory/user_000000", headers=headers)
        assert answer.status == (401 if is_strict else 200)
        assert (await browser.send("GET", "/_/api/v1/inventory/user_000000", headers=headers)).status == 200
