"""The requests that were answered lately, as they are shown."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from typing import Any

import pytest

from phygitals_async import PhygitalsClient
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_transports.aiohttp_server import serve
from served_support import ORIGIN, Client

pytestmark = pytest.mark.asyncio
KEY = "sandbox-very-secret"


async def shown(browser: Client) -> dict[str, Any]:
    """Return the last entry."""
    _, (entry,) = await browser.admin("GET", "/requests?limit=1")
    assert isinstance(entry, dict)
    return entry


async def test_what_is_shown_of_a_request(browser: Client) -> None:
    """Method, target, operation, both bodies laid out, the outcome, and a command to send it again."""
    await browser.api("POST", "/vm/buyback", {"item_id": "it's"}, key=KEY)
    entry = await shown(browser)
    milliseconds = entry.pop("milliseconds")
    assert 0 <= milliseconds < 60_000
    assert entry == {
        "number": 1,
        "at": "2026-04-18T19:05:14Z",
        "method": "POST",
        "target": "/_/api/v1/vm/buyback",
        "operation": "sell_back",
        "outcome": "400",
        "fault": "",
        "request_body": '{\n  "item_id": "it\'s"\n}',
        "answer_body": '{\n  "error": "Item not found"\n}',
        "curl": """curl -X POST -H "X-API-Key: $PHYGITALS_API_KEY" -H 'Content-Type: application/json' """
        f"""--data-raw '{{"item_id": "it'"'"'s"}}' {ORIGIN}/_/api/v1/vm/buyback""",
    }


async def test_other_requests(browser: Client) -> None:
    """Those that no client method makes are shown too, and those without a key or a body."""
    await browser.send("GET", "/_/api/v1/vm/available?platform=mainnet&x=a b")
    entry = await shown(browser)
    assert (entry["operation"], entry["outcome"], entry["target"]) == (
        "list_packs", "401", "/_/api/v1/vm/available?platform=mainnet&x=a b",
    )  # fmt: skip
    assert entry["curl"] == f"curl '{ORIGIN}/_/api/v1/vm/available?platform=mainnet&x=a b'"
    await browser.send("PUT", "/elsewhere", b"\xff", {"X-API-Key": "sandbox-1"})
    entry = await shown(browser)
    assert (entry["operation"], entry["outcome"], entry["request_body"]) == (None, "404", "\ufffd")
    assert entry["curl"] == "# its body is no text"
    assert "Cannot PUT /elsewhere" in entry["answer_body"]


@pytest.mark.parametrize(
    ("method", "path", "body", "flags"),
    [
        ("GET", "/x?a[]={b}", None, "-g "), ("GET", "/a/../%2E/b", None, "--path-as-is "),
        ("GET", "/[x]/..", None, "-g --path-as-is "), ("GET", "/x/..y", None, ""), ("HEAD", "/x", None, "-I "),
        ("HEAD", "/x", b"lost", "-I "), ("DELETE", "/x", None, "-X DELETE "),
        ("GET", "/x", b"@x", "-X GET -H Content-Type: --data-raw @x "),
        ("POST", "/x", b"{}", "-X POST -H Content-Type: --data-raw '{}' "),
    ],
)  # fmt: skip
async def test_commands_for_requests_of_every_kind(
    browser: Client, method: str, path: str, body: bytes | None, flags: str
) -> None:
    """What curl would take another way is said: patterns, dots, methods, bodies, types of bodies."""
    await browser.send(method, path, body)
    assert (await shown(browser))["curl"] == f"curl {flags}{shlex.quote(ORIGIN + path)}"


async def test_a_body_that_no_command_line_can_hold(browser: Client) -> None:
    """There is no command then."""
    await browser.send("POST", "/x", b"a\0b")
    assert (await shown(browser))["curl"] == "# its body is no text"


async def test_no_key_can_be_read(browser: Client) -> None:
    """Not in the target, in a body, or in the command, and not on the page."""
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    body = json.dumps({"item_id": KEY}).encode()
    await browser.send("POST", f"/_/api/v1/{KEY}?key={KEY}", body, headers)
    entry = await shown(browser)
    assert KEY not in json.dumps(entry)
    assert entry["target"] == "/_/api/v1/***?key=***"
    for path in ("", "/requests"):
        page = await browser.page(path)
        assert KEY not in page
        assert "/_/api/v1/***" in page
    assert KEY not in await browser.page("/requests/1")


async def test_following_carries_no_bodies(browser: Client) -> None:
    """Each has a page of its own: following costs the same whatever was answered."""
    for _ in range(50):
        await browser.api("GET", "/vm/available")
    part = await browser.page("/requests", **{"X-Part": "live"})
    assert part.count('class="entry"') == 50
    assert len(part) < 50_000
    assert "mint_price" in await browser.page("/requests/50")


@pytest.mark.parametrize("shown_of_it", [1, 8, len(KEY) - 1])
async def test_no_part_of_a_key_at_the_cut(browser: Client, shown_of_it: int) -> None:
    """A long answer that echoes it is cut where nothing of it is left to see."""
    await browser.send("GET", "/x", headers={"X-API-Key": KEY})
    before = (await shown(browser))["answer_body"].index("/x")
    path = "/" + "x" * (16 * 1024 - before - 1 - shown_of_it)
    await browser.send("GET", path + KEY, headers={"X-API-Key": KEY})
    entry = await shown(browser)
    assert path in entry["answer_body"]
    assert KEY[:shown_of_it] not in entry["answer_body"][-2 * len(KEY) :]


async def test_it_is_bounded(browser: Client) -> None:
    """The last 500 are kept, and of a long answer the beginning; numbers go on when it is cleared."""
    for _ in range(501):
        await browser.send("GET", "/nothing")
    _, entries = await browser.admin("GET", "/requests?limit=500")
    assert [entries[0]["number"], entries[-1]["number"]] == [501, 2]
    _, entries = await browser.admin("GET", "/requests?after=499")
    assert [entry["number"] for entry in entries] == [501, 500]
    await browser.api("GET", "/vm/available")
    assert 16_000 < len((await shown(browser))["answer_body"]) <= 16 * 1024
    await browser.admin("DELETE", "/requests")
    assert await browser.admin("GET", "/requests") == (200, [])
    await browser.send("GET", "/nothing")
    assert (await shown(browser))["number"] == 503


async def test_the_command_makes_the_same_request() -> None:
    """A shell that has the key runs it as it stands."""
    served = ServedSandbox(users=1)
    browser = Client(served)
    async with serve(served) as url, PhygitalsClient(api_key=KEY, base_url=f"{url}/_") as api:
        await api.get_card(served.sandbox.ledger.users["user_000000"][0].item.id)
        first = await shown(browser)
        words = shlex.split(first["curl"].replace("$PHYGITALS_API_KEY", KEY))
        assert words[0] == "curl"
        # Without curl on the machine, what it would do.
        headers = dict(word.split(": ", 1) for flag, word in pairwise(words) if flag == "-H")
        assert headers == {"X-API-Key": KEY}
        assert words[-1].startswith(f"{url}/_/api/v1/card/")
