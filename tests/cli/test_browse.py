"""What there is: packs, inventories, orders, purchases."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest

from cli_support import KEY, Server, lines, press_ctrl_c
from phygitals_async import Destination, PhygitalsClient, Request, Response
from phygitals_async.cli._endings import Exit


def shipped(server: Server) -> str:
    """Ship a card, and return the order's id."""

    async def ship() -> str:
        item = server.item()
        home = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
        async with PhygitalsClient(api_key=KEY, base_url=f"{server.url}/_") as api:
            quotes = await api.quote_shipping([item.id], home)
            return (await api.request_shipping(quotes.quotes[0].id)).order_id

    return asyncio.run(ship())


def test_packs(server: Server) -> None:
    """A line for each, under the names of the columns; as JSON, what the API documents."""
    result = server.run("packs")
    assert (result.exit_code, result.stderr) == (Exit.DONE, "")
    head, *rows = lines(result.stdout)
    assert head == ["id", "slug", "name", "USD", "most", "can be bought"]
    assert ["pokemon-vault", "Pokémon Vault", "25.00", "10", "yes"] in [row[1:] for row in rows]
    assert rows[-1][-1] == "no"
    (document,) = server.run("packs", "--platform", "mainnet", "--json").stdout.splitlines()
    assert [pack["id"] for pack in json.loads(document)] == [row[0] for row in rows]
    assert server.seen[-1] == "GET /vm/available?platform=mainnet"


@pytest.mark.usefixtures("terminal")
def test_a_table_on_a_terminal(server: Server) -> None:
    """It is drawn, and what looks like rich's markup is a card's name."""
    server.item("ann", name="[bold]Charizard[/bold]")
    result = server.run("inventory", "ann")
    assert "[bold]Charizard[/bold]" in result.stdout
    assert "─" in result.stdout
    assert "\t" not in result.stdout
    assert "phygitals: ann owns 1 items, which sell back for USD 8.50" in result.stderr


def test_the_items_of_one_user(server: Server) -> None:
    """Each with its offer and when that ends."""
    item = server.item("ann", price="1234.5")
    result = server.run("inventory", "ann")
    assert result.exit_code == Exit.DONE
    head, row = lines(result.stdout)
    assert head == ["id", "card", "USD", "offer ends, UTC", "pack"]
    assert row[:3] == [item.id, "Juan Soto RC Auto /25", "1,234.50"]
    assert item.buyback_expires_at is not None
    assert row[3] == f"{item.buyback_expires_at:%Y-%m-%d %H:%M}"


def test_one_user_as_json_is_one_line(server: Server) -> None:
    """And no line about progress."""
    server.item("ann")
    result = server.run("inventory", "ann", "--json")
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["items"][0]["buyback_price"] == 8.5


def test_an_unknown_user(server: Server) -> None:
    """Status 1, and one line."""
    result = server.run("inventory", "nobody")
    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert result.stderr == "phygitals: get_inventory: 404 User not found (user_id 'nobody')\n"


def test_many_users(server: Server) -> None:
    """A line for each as it is answered, the first failure in full, and how many there were."""
    server.item("ann")
    server.item("bob", price="1")
    result = server.run("inventory", "ann", "bob", "nobody", "noone", "--limit", "1")
    assert result.exit_code == Exit.FAILED
    assert lines(result.stdout) == [
        ["user", "items", "USD", "error"],
        ["ann", "1", "8.50", ""],
        ["bob", "1", "1.00", ""],
        ["nobody", "", "", "UserNotFound"],
        ["noone", "", "", "UserNotFound"],
    ]
    first, last = result.stderr.splitlines()
    assert first == "phygitals: nobody: get_inventory: 404 User not found (user_id 'nobody')"
    assert last.startswith("phygitals: 4 of 4 in 0 s, 2 failed, ")


def test_ids_from_a_file(server: Server, tmp_path: Path) -> None:
    """One in each line, whatever editor wrote it; each is a line of JSON as soon as there is an answer."""
    server.item("ann")
    server.item("bö b")
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffann\r\n\r\nbö b\nnobody".encode())
    result = server.run("inventory", "--ids", str(file), "--json", "--rate", "1000")
    assert result.exit_code == Exit.FAILED
    documents = {one["user_id"]: one for one in map(json.loads, result.stdout.splitlines())}
    assert set(documents) == {"ann", "bö b", "nobody"}
    assert documents["nobody"]["error"]["class"] == "UserNotFound"
    assert len(documents["ann"]["items"]) == 1
    assert "phygitals: 3 of 3 in " in result.stderr


def test_ids_from_stdin(server: Server) -> None:
    """Nobody knows how many there are."""
    server.item("ann")
    result = server.run("inventory", "--ids", "-", answers="ann\n")
    assert result.exit_code == Exit.DONE
    assert lines(result.stdout)[1:] == [["ann", "1", "8.50", ""]]
    assert "phygitals: 1 in " in result.stderr


@pytest.mark.parametrize("arguments", [[], ["ann", "--ids", "-"]])
def test_users_are_named_in_one_way(server: Server, arguments: list[str]) -> None:
    """Neither none nor both."""
    result = server.run("inventory", *arguments)
    assert result.exit_code == Exit.USAGE
    assert "name some users, or give a file with --ids." in result.stderr


def test_a_file_that_is_no_text(server: Server, tmp_path: Path) -> None:
    """It is told in a line."""
    (tmp_path / "ids").write_bytes(b"\xff\xfe\n")
    result = server.run("inventory", "--ids", str(tmp_path / "ids"))
    assert result.exit_code == Exit.USAGE
    assert "the user ids are not UTF-8 text" in result.stderr
    assert server.run("inventory", "--ids", str(tmp_path / "none")).exit_code == Exit.USAGE


def test_a_refused_key_ends_a_run(server: Server) -> None:
    """Status 3: no further user is asked."""
    users = [f"user-{number}" for number in range(50)]
    result = server.run("inventory", *users, "--limit", "1", PHYGITALS_API_KEY="another")
    assert result.exit_code == Exit.KEY_REFUSED
    assert len(server.seen) < 5
    assert "NotAttempted" in result.stdout
    assert "401" in result.stderr


def test_interrupting_a_run(server: Server) -> None:
    """What was answered is out, and the last line says how to go on."""
    server.item("ann")

    async def interrupt(_: Request) -> None:
        press_ctrl_c()
        await asyncio.sleep(60)

    server.replaced["/bob"] = interrupt
    result = server.run("inventory", "ann", "bob", "--limit", "1")
    assert result.exit_code == Exit.INTERRUPTED
    assert lines(result.stdout)[1:] == [["ann", "1", "8.50", ""]]
    assert result.stderr.splitlines()[-1] == (
        "phygitals: interrupted; go on with: phygitals inventory ann bob --limit 1"
    )


def test_an_order(server: Server) -> None:
    """Where it stands, as far as is known."""
    order_id = shipped(server)
    result = server.run("order", order_id)
    assert result.exit_code == Exit.DONE
    facts = dict(lines(result.stdout)[1:])
    assert facts["order"] == order_id
    assert facts["status"] == "queued"
    assert facts["items"] == "Juan Soto RC Auto /25"
    assert "error" not in facts
    assert json.loads(server.run("order", order_id, "--json").stdout)["order_id"] == order_id


def test_watching_an_order(server: Server) -> None:
    """A line at each change, until it has arrived."""
    order_id = shipped(server)
    document = json.loads(server.run("order", order_id, "--json").stdout)
    states = iter(["queued", "queued", "shipped", "delivered"])

    def answer(_: Request) -> Response:
        body = json.dumps({**document, "status": next(states)}).encode()
        return Response(200, {"content-type": "application/json"}, body)

    server.replaced[f"/{order_id}"] = answer
    result = server.run("order", order_id, "--watch", "--interval", "0.01", "--json")
    assert result.exit_code == Exit.DONE
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["queued", "shipped", "delivered"]


def test_a_purchase_that_was_started(server: Server) -> None:
    """It is waited for, and nothing is bought."""
    server.sandbox.options.pending_polls = 1
    bought = server.run("buy", "pokemon-vault", "ann", "--yes", "--json")
    session = json.loads(bought.stdout)["session_id"]
    before = server.seen.count("POST /vm/buy/init")
    result = server.run("purchase", session)
    assert result.exit_code == Exit.DONE
    assert lines(result.stdout)[0] == ["id", "card", "USD"]
    assert server.seen.count("POST /vm/buy/init") == before == 1


def test_a_purchase_that_stays_pending(server: Server) -> None:
    """Status 4: it is unknown, not failed, and can be waited for again, where it was."""
    server.replaced["/buy/status"] = lambda _: Response(200, {}, b'{"status": "pending"}')
    result = server.run("purchase", "some-session", "--wait", "0.05", "--base-url", f"{server.url}/_")
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1].endswith(
        f"go on with: phygitals purchase --base-url {server.url}/_ some-session"
    )


def test_interrupting_the_wait_for_a_purchase(server: Server) -> None:
    """It goes on without anybody waiting."""

    async def interrupt(_: Request) -> None:
        press_ctrl_c()
        await asyncio.sleep(60)

    server.replaced["/buy/status"] = interrupt
    result = server.run("purchase", "-s", "--environment", "sandbox", "--", "-s")
    assert result.exit_code == Exit.USAGE
    result = server.run("purchase", "--environment", "sandbox", "--", "-s")
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        "phygitals: interrupted: the purchase goes on without you; see what becomes of it with: "
        "phygitals purchase --environment sandbox -- -s"
    )


def test_amounts_are_exact(server: Server) -> None:
    """Sums of many are not floats."""
    for price in ("0.10", "0.20"):
        server.sandbox.add_item("ann", name="Card", buyback_price=Decimal(price))
    assert server.run("inventory", "ann").stderr.endswith("sell back for USD 0.30\n")
