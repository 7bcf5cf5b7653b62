"""The pictures of cards and packs."""

from __future__ import annotations

import json
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from phygitals_async.sandbox.served.pictures import Face, back, front
from served_support import ORIGIN, Client

pytestmark = pytest.mark.asyncio


def parsed(picture: str | bytes) -> ElementTree.Element:
    """Read a picture, which is our own."""
    return ElementTree.fromstring(picture)  # noqa: S314 - it is ours.


async def test_every_picture_of_an_answer_is_there(browser: Client) -> None:
    """Each URL in an inventory, a list of packs and a card leads to a picture of this server."""
    _, packs = await browser.api("GET", "/vm/available")
    urls = [pack["claw_image_url"] for pack in packs[:20] if "claw_image_url" in pack]
    item = next(iter((await browser.api("GET", "/inventory/user_000001"))[1]["items"]))
    urls += [item["content"]["metadata"]["image"], item["content"]["links"]["image"]]
    new = {"name": "Card", "buyback_price": 1}
    for _, items in (
        await browser.admin("GET", "/users/user_000001/items"),
        (0, [(await browser.admin("POST", "/users/user_000001/items", new))[1]]),
    ):
        urls += [items[0]["content"]["metadata"]["image"], items[0]["content"]["links"]["image"]]
    _, cards = await browser.api("GET", f"/vm/chase/{packs[0]['slug']}")
    urls += [url for card in cards for url in (card["image"], card["back_image"]) if url]
    for url in urls:
        assert url.startswith(f"{ORIGIN}/_cards/")
        answer = await browser.send("GET", url.removeprefix(ORIGIN))
        assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert parsed(answer.body).tag == "{http://www.w3.org/2000/svg}svg"


async def test_what_is_drawn(browser: Client) -> None:
    """The name, the category and the grade of an item that is owned, sold or listed; of a pack, its name."""
    fact = {"trait_type": "Grade", "value": "PSA 10.0"}
    other = {"trait_type": "Category", "value": "Base<ball>"}
    new = {"id": "a/b", "name": "2024 Juan & Soto RC Auto", "buyback_price": 1, "attributes": [fact, other]}
    await browser.admin("POST", "/users/u/items", new)
    for _ in range(2):
        text = (await browser.send("GET", "/_cards/a%2Fb/front.svg")).body.decode()
        for shown in ("Juan &amp; Soto", "2024", "PSA 10.0", "BASE&lt;BALL&gt;", "J&amp;"):
            assert shown in text
        # It is drawn when it is sold, too.
        await browser.api("POST", "/vm/buyback", {"item_id": "a/b"})
    stock = next(iter(browser.served.sandbox.stocks.values()))
    listing = stock.chase()[0]
    assert (
        listing.name.split(" ", 1)[1].split()[0]
        in (await browser.send("GET", f"/_cards/{quote(listing.id, safe='')}/front.svg")).body.decode()
    )
    pack = (await browser.send("GET", f"/_cards/{stock.pack.id}/front.svg")).body.decode()
    assert f"<title>{stock.pack.name}, front</title>" in pack
    assert b"Unknown card" in (await browser.send("GET", "/_cards/nothing/back.svg")).body


@pytest.mark.parametrize("path", ["/_cards", "/_cards/x", "/_cards/x/side.svg", "/_cards/x/front.svg/more"])
async def test_no_picture(browser: Client, path: str) -> None:
    """Any other path is a 404."""
    assert (await browser.send("GET", path)).status == 404
    refused = await browser.send("DELETE", "/_cards/x/front.svg")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await browser.send("HEAD", "/_cards/x/front.svg")).status == 200


@pytest.mark.parametrize(
    ("grade", "shown"), [("PSA 10.0", "TRADING CARDS…"), ("", "TRADING CARDS GAMES O…")], ids=["graded", "not graded"]
)
async def test_a_long_category_is_cut(grade: str, shown: str) -> None:
    """It ends before the grade, or with the card."""
    assert f">{shown}</text>" in front(Face("key", "Name", "Trading cards games of the world", grade))
    assert ">POKÉMON</text>" in front(Face("key", "Name", "Pokémon", grade))


async def test_a_name_with_control_characters(browser: Client) -> None:
    """Its card is drawn all the same."""
    new = {"id": "odd", "name": "2024 \0\x1b Soto", "buyback_price": 1}
    await browser.admin("POST", "/users/u/items", new)
    for side in ("front", "back"):
        assert "Soto" in (parsed((await browser.send("GET", f"/_cards/odd/{side}.svg")).body)[0].text or "")


@pytest.mark.parametrize("number", range(40))
async def test_any_name_can_be_drawn(number: int) -> None:
    """Whatever the name and the key, it is well-formed, and the same each time."""
    long = "A name that is far too long for one line, and for two lines as well"
    names = ("", "x", "2024", "<b>&\"'", long, "日本 カード", "a" * 200, "\0\x1b[31m\ufffe\ud800")
    face = Face(f"key-{number}", names[number % len(names)], "Label", "" if number % 2 else "SGC 10.0 and more")
    for draw in (front, back):
        picture = draw(face)
        parsed(picture)
        assert draw(face) == picture
        assert len(picture) < 12_000


async def test_the_host_of_the_request_is_named(browser: Client) -> None:
    """Whoever asks by another name gets that name; one that is none is not written into an answer."""
    for host, shown in (("box:1", "http://box:1"), ('"x', "http://127.0.0.1"), ("", "http://127.0.0.1")):
        headers = {"X-API-Key": "sandbox-1", "Host": host}
        answer = await browser.send("GET", "/_/api/v1/inventory/user_000001", headers=headers)
        image = json.loads(answer.body)["items"][0]["content"]["metadata"]["image"]
        assert image.startswith(f"{shown}/_cards/")
