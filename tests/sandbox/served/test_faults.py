"""What goes wrong on purpose between a client and a served sandbox, without HTTP and over it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from phygitals_async import ConnectionLost, OutcomeUnknown, PhygitalsClient, RetryPolicy, StatusError
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_transports import MemoryTransport
from phygitals_transports.aiohttp_server import serve
from served_support import Client

pytestmark = pytest.mark.asyncio


async def arm(browser: Client, **fault: Any) -> int:
    """Arm a fault and return its number."""
    status, answer = await browser.admin("POST", "/faults", fault)
    assert status == 201, answer
    number: int = answer["number"]
    return number


async def outcomes(browser: Client) -> list[tuple[str, str]]:
    """Return what the log says came of the requests, the latest first."""
    _, entries = await browser.admin("GET", "/requests")
    return [(entry["outcome"], entry["fault"]) for entry in entries]


@pytest.mark.parametrize("after", [False, True])
async def test_latency(browser: Client, after: bool) -> None:
    """It comes later, and delays add up."""
    await arm(browser, kind="latency", seconds=1.5, after=after)
    await arm(browser, kind="latency", seconds=2, times=None, operation="get_inventory")
    for waited in ([1.5, 2] if not after else [2, 1.5], [2]):
        browser.paused.clear()
        assert (await browser.api("GET", "/inventory/user_000000"))[0] == 200
        assert browser.paused == waited
    browser.paused.clear()
    assert (await browser.api("GET", "/vm/available"))[0] == 200
    assert browser.paused == []
    when = "after" if after else "before"
    assert (await outcomes(browser))[2] == ("200", f"1.5 s late, {when} acting; 2 s late, before acting")


@pytest.mark.parametrize("kind", ["lost", "stall"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_lost_answer(browser: Client, kind: str, after: bool) -> None:
    """No answer comes, at once or after a while; whether the sandbox acted is as it was armed."""
    item = browser.served.sandbox.ledger.users["user_000000"][0].item.id
    await arm(browser, kind=kind, operation="sell_back", after=after, seconds=30)
    with pytest.raises(ConnectionLost):
        await browser.api("POST", "/vm/buyback", {"item_id": item})
    assert browser.paused == ([30] if kind == "stall" else [])
    assert (browser.served.sandbox.ledger.find(item) is None) is after
    (entry,) = await outcomes(browser)
    assert entry[0] == "lost"
    # It was armed for one request.
    status, _ = await browser.api("POST", "/vm/buyback", {"item_id": item})
    assert status == (400 if after else 200)


async def test_an_edge(browser: Client) -> None:
    """It answers in HTML, with a ray, and the sandbox never sees the request."""
    await arm(browser, kind="edge")
    answer = await browser.send("GET", "/_/api/v1/vm/available", headers={"X-API-Key": "sandbox-1"})
    assert (answer.status, answer.headers["content-type"]) == (403, "text/html; charset=UTF-8")
    assert "cf-ray" in answer.headers
    assert b"You are unable to access 127.0.0.1:8765" in answer.body
    assert await outcomes(browser) == [("403", "403 in HTML, from an edge, before acting")]


@pytest.mark.parametrize(
    ("status", "error", "after"),
    [
        (503, "An unexpected error occurred", False), (503, "An unexpected error occurred", True),
        (408, "A fault on purpose", True), (418, "A fault on purpose", False),
    ],
)  # fmt: skip
async def test_a_status(browser: Client, status: int, error: str, after: bool) -> None:
    """It is answered in the place of the sandbox's own answer."""
    await arm(browser, kind="status", status=status, after=after, times=2)
    for left in ([1], []):
        assert await browser.api("POST", "/vm/buyback", {"item_id": "x"}) == (status, {"error": error})
        _, armed = await browser.admin("GET", "/faults")
        assert [fault["left"] for fault in armed] == left
    assert await browser.api("POST", "/vm/buyback", {"item_id": "x"}) == (400, {"error": "Item not found"})


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 408, 409, 418, 422, 425, 429, 451, 499, 500, 503, 520, 599]
)
async def test_no_status_lies(browser: Client, status: int) -> None:
    """After a sale was made, only what leaves a client in doubt can be answered, for one operation or for all."""
    item = browser.served.sandbox.ledger.users["user_000000"][0].item.id
    fault = {"kind": "status", "status": status, "after": True}
    for operation in ("sell_back", "start_purchase", "request_shipping", None):
        found, answer = await browser.admin("POST", "/faults", {**fault, "operation": operation})
        assert found == (201 if status == 408 or status >= 500 else 400), answer
        assert found == 201 or answer["error"].startswith(f"after acting, {status} would lie")
    # A read changes nothing, so whatever is answered is true.
    await browser.admin("DELETE", "/faults")
    await arm(browser, **fault, operation="get_inventory")
    await arm(browser, **{**fault, "after": False}, operation="sell_back")
    once = RetryPolicy(retries=0)
    async with PhygitalsClient(MemoryTransport(browser.served), api_key="sandbox-1", retry=once) as api:
        with pytest.raises(OutcomeUnknown if status == 408 or status >= 500 else StatusError):
            await api.sell_back(item)


async def test_the_first_of_several(browser: Client) -> None:
    """A request meets one failure, the one that was armed first, and leaves the others."""
    await arm(browser, kind="status", status=500)
    await arm(browser, kind="status", status=501, times=None)
    third = await arm(browser, kind="status", status=502)
    seen = [(await browser.api("GET", "/vm/available"))[0] for _ in range(3)]
    assert seen == [500, 501, 501]
    assert await browser.admin("DELETE", f"/faults/{third}") == (200, {"done": True})
    assert (await browser.admin("DELETE", f"/faults/{third}"))[0] == 404
    await browser.admin("DELETE", "/faults")
    assert (await browser.api("GET", "/vm/available"))[0] == 200


async def test_a_bug_is_no_answer(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sandbox raises is raised, and the log does not say that the request is still under way."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(browser.served.sandbox.ledger.__class__, "inventory", fail)
    with pytest.raises(ZeroDivisionError):
        await browser.api("GET", "/inventory/user_000000")
    assert await outcomes(browser) == [("lost", "")]


async def test_a_request_under_way() -> None:
    """The log shows it before it is answered."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: float) -> None:
        held.set()
        await go_on.wait()

    browser = Client(ServedSandbox(users=1, sleep=hold))
    await arm(browser, kind="latency")
    call = asyncio.create_task(browser.api("GET", "/vm/available"))
    await held.wait()
    assert (await outcomes(browser))[0][0] == "under way"
    go_on.set()
    assert (await call)[0] == 200


async def test_the_client_takes_them_for_what_they_are() -> None:
    """Over real HTTP: a sale whose answer is lost is unknown, and was made; an edge is a refusal."""
    served = ServedSandbox(users=1)
    once = RetryPolicy(retries=0)
    item = served.sandbox.ledger.users["user_000000"][0].item.id
    admin = Client(served)
    async with serve(served) as url, PhygitalsClient(api_key="sandbox-1", base_url=f"{url}/_", retry=once) as api:
        await arm(admin, kind="lost", operation="sell_back", after=True)
        with pytest.raises(OutcomeUnknown):
            await api.sell_back(item)
        owned = [each.id for each in (await api.get_inventory("user_000000")).items]
        assert item not in owned
        await arm(admin, kind="edge")
        with pytest.raises(StatusError) as blocked:
            await api.list_packs()
        assert blocked.value.status == 403


async def test_in_memory() -> None:
    """The handler serves a `MemoryTransport` as well."""
    served = ServedSandbox(users=1)
    async with PhygitalsClient(MemoryTransport(served), api_key="sandbox-1", retry=RetryPolicy(retries=0)) as api:
        await arm(Client(served), kind="lost")
        with pytest.raises(ConnectionLost):
            await api.list_packs()
        assert len(await api.list_packs()) == 124
