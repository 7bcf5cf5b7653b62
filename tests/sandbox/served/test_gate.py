"""Who may look at a served sandbox, and who may change anything."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import pytest

from phygitals_async.sandbox.served.gate import is_loopback
from served_support import HOST, ORIGIN, Client, client

TOKEN = "the-right-token"
pytestmark = pytest.mark.asyncio


@pytest.fixture
def guarded() -> Client:
    """Return a client of a sandbox that other machines reach."""
    guarded = client(users=1, token=TOKEN)
    guarded.host = "box.example:8765"
    return guarded


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("LOCALHOST", True), ("10.0.0.1", False), ("::", False), ("192.168.0.9", False), ("example.org", False),
        ("localhost.example.org", False), ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
async def test_which_names_are_this_machine(host: str, is_local: bool) -> None:
    """Only addresses and the one name that cannot be another's."""
    assert is_loopback(host) is is_local


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        # Its name was made to lead here.
        {"Origin": "http://evil.example:8765", "Host": "evil.example:8765", "Sec-Fetch-Site": "same-origin"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/_admin/wipe", "/_console/do/wipe", "/_/api/v1/vm/buyback", "/_console/login"])
async def test_pages_of_other_sites_change_nothing(browser: Client, path: str, headers: dict[str, str]) -> None:
    """Whatever they ask for, they are refused, the Partner API included."""
    item = browser.served.sandbox.ledger.users["user_000000"][0].item.id
    body = json.dumps({"item_id": item}).encode()
    sent = {"X-API-Key": "sandbox-1", "Content-Type": "application/json", **headers}
    answer = await browser.send("POST", path, body, sent)
    assert answer.status == 403
    assert len(browser.served.sandbox.ledger.users) == 3
    assert browser.served.sandbox.ledger.find(item) is not None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "", "127.0.0.1:1/@evil", "192.168.0.9:8765"])
@pytest.mark.parametrize("path", ["/_admin/state", "/_console", "/_console/static/console.js"])
async def test_names_that_are_not_its_own(browser: Client, path: str, host: str) -> None:
    """A name that somebody made lead here is answered nothing."""
    answer = await browser.send("GET", path, headers={"Host": host})
    assert answer.status == 403


@pytest.mark.parametrize("host", [HOST, "localhost", "localhost:80", "[::1]:8765", "127.0.0.2"])
async def test_names_of_its_own(browser: Client, host: str) -> None:
    """Each name of this machine will do, at any port: it may be forwarded."""
    browser.host = host
    assert (await browser.admin("GET", "/state"))[0] == 200
    assert (await browser.form("wipe")).status == 303
    assert (await browser.api("GET", "/vm/available"))[0] == 200


async def test_programs_send_no_origin(browser: Client) -> None:
    """What is no browser needs nothing."""
    assert (await browser.admin("POST", "/wipe"))[0] == 200


@pytest.mark.parametrize("token", [None, "", "wrong", "the-right-toke", "\u00e9"])
async def test_the_admin_api_asks_for_the_token(guarded: Client, token: str | None) -> None:
    """Without it there is nothing to see, and nothing to change; the Partner API is open."""
    headers = {} if token is None else {"X-Admin-Token": token}
    for method, path in (("GET", "/state"), ("POST", "/wipe"), ("GET", "/nothing")):
        status, answer = await guarded.admin(method, path, **headers)
        assert (status, list(answer)) == (401, ["error"])
    assert TOKEN not in json.dumps(answer)
    assert (await guarded.api("GET", "/inventory/user_000000"))[0] == 200


async def test_the_token_opens_the_admin_api(guarded: Client) -> None:
    """Under any name; but not in a browser's cookie, which it sends by itself."""
    assert (await guarded.admin("GET", "/state", **{"X-Admin-Token": TOKEN}))[0] == 200
    assert (await guarded.admin("GET", "/state", Cookie=f"phygitals_admin={TOKEN}"))[0] == 401


async def test_the_address_that_is_printed_opens_the_console(guarded: Client) -> None:
    """It sets a cookie that scripts cannot read and other sites do not send, and takes the token out of the address."""
    answer = await guarded.send("GET", f"/_console?token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/_console")
    cookie = SimpleCookie(answer.headers["set-cookie"])["phygitals_admin"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    kept = {"Cookie": f"other=1; phygitals_admin={cookie.value}"}
    assert "Latest requests" in await guarded.page("", **kept)
    headers = {**kept, "Origin": "http://box.example:8765"}
    assert (await guarded.send("POST", "/_console/do/wipe", b"", headers)).status == 303


@pytest.mark.parametrize("cookie", ["", "phygitals_admin=wrong", "xphygitals_admin=the-right-token"])
async def test_the_console_asks_for_the_token(guarded: Client, cookie: str) -> None:
    """There is a form for it, which needs no script."""
    for path in ("", "/users", "/nothing", "?token=wrong"):
        answer = await guarded.send("GET", f"/_console{path}", headers={"Cookie": cookie})
        assert answer.status == 401
        assert b'action="/_console/login"' in answer.body
        assert b"user_000000" not in answer.body
        assert (b"That is not the token" in answer.body) == path.endswith("wrong")
    assert (await guarded.send("POST", "/_console/do/wipe", b"", {"Cookie": cookie})).status == 401
    assert len(guarded.served.sandbox.ledger.users) == 1


async def test_the_form_opens_it(guarded: Client) -> None:
    """With the right token, and with no other."""
    for token, status in (("wrong", 401), (TOKEN, 303)):
        headers = {"Origin": "http://box.example:8765", "Sec-Fetch-Site": "same-origin"}
        answer = await guarded.send("POST", "/_console/login", urlencode({"token": token}).encode(), headers)
        assert answer.status == status
        assert ("set-cookie" in answer.headers) == (status == 303)


async def test_what_the_pages_look_like_needs_no_token(guarded: Client) -> None:
    """Style and script hold no secret, and the form for the token has them too; so have pictures."""
    for path in (
        "_console/static/console.css",
        "_console/static/console.js",
        "_console/static/icon.svg",
        "_cards/x/front.svg",
    ):
        assert (await guarded.send("GET", f"/{path}")).status == 200


async def test_a_token_that_is_no_text(guarded: Client) -> None:
    """It is a wrong one."""
    for headers in ({"X-Admin-Token": "\udcff"}, {"Cookie": "phygitals_admin=\udcff"}):
        assert (await guarded.send("GET", "/_admin/users", headers=headers)).status == 401


async def test_a_token_where_none_is_needed(browser: Client) -> None:
    """Nothing of it is answered."""
    answer = await browser.send("GET", "/_console?token=a%0d%0aX-Y:%20z")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert "X-Y" not in answer.body.decode()
