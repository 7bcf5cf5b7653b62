"""Buying, selling, shipping: they ask first, send once, and say what is known."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli_support import Server, lines, pressing
from phygitals_async import Item, OutcomeUnknown, Request, Response
from phygitals_async.cli._asking import sending
from phygitals_async.cli._endings import Ending, Exit

HOME = {"name": "Jane Doe", "line1": "123 Main St", "city": "Austin", "country": "US"}
ADDRESS = [text for part, value in HOME.items() for text in (f"--{part}", value)]
BUY = ("buy", "pokemon-vault", "ann")


def ask_to(server: Server, action: str) -> tuple[list[str], str]:
    """Return a command that moves money or goods, without --yes, and the path of the request that does."""
    item = server.item()
    arguments = {
        "buy": [*BUY],
        "sell": ["sell", item.id, "--user", "ann"],
        "ship": ["ship", item.id, "--user", "ann", *ADDRESS],
    }
    return arguments[action], {"buy": "/buy/init", "sell": "/buyback", "ship": "/ship/request"}[action]


def sent(server: Server, path: str) -> int:
    """Count the requests that moved something."""
    return sum(request.endswith(path) for request in server.seen)


def lost(server: Server) -> Callable[[Request], Any]:
    """Let the sandbox act, and lose its answer behind a 502."""

    def answer(request: Request) -> Response:
        server.sandbox(request)
        return Response(502, {}, b"Bad gateway")

    return answer


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
@pytest.mark.parametrize("answer", ["n\n", "\n", "no\n", "yess\n"])
def test_anything_but_a_yes_is_a_no(server: Server, action: str, answer: str) -> None:
    """Nothing is sent, and the status says that it was not done."""
    arguments, path = ask_to(server, action)
    result = server.run(*arguments, answers=answer)
    assert result.exit_code == Exit.FAILED
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "Go on? [y/N] phygitals: nothing was sent"
    assert sent(server, path) == 0


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_yes(server: Server, action: str, answer: str) -> None:
    """It is sent once."""
    arguments, path = ask_to(server, action)
    result = server.run(*arguments, answers=answer)
    assert result.exit_code == Exit.DONE
    assert sent(server, path) == 1


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
def test_with_nobody_to_answer(server: Server, action: str) -> None:
    """As from cron: it is refused, and --yes named."""
    arguments, path = ask_to(server, action)
    result = server.run(*arguments)
    assert result.exit_code == Exit.USAGE
    assert "nobody answered, and nothing was sent: --yes does not ask." in result.stderr
    assert sent(server, path) == 0


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
def test_ctrl_c_at_the_question(server: Server, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Nothing was sent, and the command is the one to go on with."""
    arguments, path = ask_to(server, action)

    class Interrupted:
        def readline(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("phygitals_async.cli._asking.sys", type("sys", (), {"stdin": Interrupted()}))
    result = server.run(*arguments)
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        f"phygitals: interrupted, nothing was sent; go on with: {shlex.join(['phygitals', *arguments])}"
    )
    assert sent(server, path) == 0


def test_buy_says_what_it_costs(server: Server) -> None:
    """Price, amount, sum, for whom and where; afterwards the session, and the cards."""
    result = server.run(*BUY, "--amount", "3", "--yes")
    assert result.exit_code == Exit.DONE
    asked, session = result.stderr.splitlines()
    assert asked == "phygitals: buy in sandbox: 3 x Pokémon Vault at USD 25.00 = USD 75.00, for ann"
    assert session.startswith("phygitals: bought; the session is ")
    assert len(lines(result.stdout)) == 4


def test_what_cannot_be_bought(server: Server) -> None:
    """It is told before anything is asked."""
    unknown = server.run("buy", "no-such-pack", "ann")
    assert unknown.exit_code == Exit.FAILED
    assert unknown.stderr == (
        "phygitals: no pack on offer has the id or slug 'no-such-pack': phygitals packs lists them\n"
    )
    assert "Legends cannot be bought now" in server.run("buy", "legends", "ann").stderr
    many = server.run(*BUY, "--amount", "11")
    assert many.exit_code == Exit.USAGE
    assert "sells at most 10 pulls at a time, not 11" in many.stderr


def test_a_purchase_that_fails(server: Server) -> None:
    """The error is told, and the session was."""
    server.sandbox.options.fail_purchases = True
    result = server.run(*BUY, "--yes")
    assert result.exit_code == Exit.FAILED
    assert "bought; the session is" in result.stderr
    assert "Transaction failed" in result.stderr.splitlines()[-1]


# Unknown outcomes


def test_a_lost_purchase(server: Server) -> None:
    """It is not repeated, and what was there before is told."""
    server.run(*BUY, "--amount", "2", "--yes")
    server.replaced["/buy/init"] = lost(server)
    result = server.run(*BUY, "--yes")
    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    line = result.stderr.splitlines()[-1]
    assert "UNKNOWN whether it was bought: do not repeat it, find out first." in line
    assert line.endswith("ann had 2 items of this pack; if phygitals inventory ann shows more, it was bought.")
    assert sent(server, "/buy/init") == 2


def test_a_lost_purchase_whose_session_can_be_read(server: Server) -> None:
    """The session is what to go on with."""
    body = b'{"session_id": "the-session", "nfts": 7}'
    server.replaced["/buy/init"] = lambda _: Response(200, {"content-type": "application/json"}, body)
    line = server.run(*BUY, "--yes").stderr.splitlines()[-1]
    assert line.endswith("The answer named the purchase: phygitals purchase the-session")


def test_a_lost_sale(server: Server) -> None:
    """What comes after it is not tried, and named."""
    first, second = server.item(), server.item()
    server.replaced["/buyback"] = lost(server)
    result = server.run("sell", first.id, second.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.FAILED
    line = result.stderr.splitlines()[-1]
    assert f"UNKNOWN whether {first.id} was sold" in line
    assert line.endswith(f"If phygitals inventory ann no longer shows {first.id}, it was sold. Not tried: {second.id}.")
    assert sent(server, "/buyback") == 1


def test_a_lost_sale_whose_amount_can_be_read(server: Server) -> None:
    """It is told."""
    item = server.item()
    body = b'{"success": "yes", "amount": 8.50}'
    server.replaced["/buyback"] = lambda _: Response(200, {"content-type": "application/json"}, body)
    line = server.run("sell", item.id, "--yes").stderr.splitlines()[-1]
    assert line.endswith(f"If phygitals inventory USER no longer shows {item.id}, it was sold for USD 8.50.")


def test_a_lost_order(server: Server) -> None:
    """Its id is lost, unless it can be read."""
    arguments, path = ask_to(server, "ship")
    server.replaced[path] = lost(server)
    line = server.run(*arguments, "--yes").stderr.splitlines()[-1]
    assert "UNKNOWN whether it was ordered" in line
    assert line.endswith(
        "If phygitals inventory ann no longer shows the items, they are in an order whose id is lost: ask the vendor."
    )
    assert sent(server, path) == 1


def test_a_lost_order_whose_id_can_be_read(server: Server) -> None:
    """The order is what to look at."""
    arguments, path = ask_to(server, "ship")
    body = b'{"order_id": "order_1", "status": 3}'
    server.replaced[path] = lambda _: Response(200, {"content-type": "application/json"}, body)
    line = server.run(*arguments, "--yes").stderr.splitlines()[-1]
    assert line.endswith("The answer named an order: phygitals order order_1")


# Ctrl-C on the way


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
def test_the_first_ctrl_c_waits_for_the_answer(server: Server, action: str) -> None:
    """So that what happened is known."""
    arguments, path = ask_to(server, action)
    server.replaced[path] = pressing(server, 1)
    result = server.run(*arguments, "--yes")
    assert "the request is on its way: waiting for the answer." in result.stderr
    if action == "buy":
        assert result.exit_code == Exit.INTERRUPTED
        assert "interrupted; see what was pulled with: phygitals purchase " in result.stderr.splitlines()[-1]
    else:
        assert result.exit_code == Exit.DONE
        assert len(lines(result.stdout)) == 1


@pytest.mark.parametrize("action", ["buy", "sell", "ship"])
def test_the_second_ctrl_c_leaves_without_it(server: Server, action: str) -> None:
    """Then nobody knows, and it says so."""
    arguments, path = ask_to(server, action)

    async def hold(request: Request) -> None:
        await pressing(server, 2)(request)
        await asyncio.sleep(60)

    server.replaced[path] = hold
    result = server.run(*arguments, "--yes")
    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    line = result.stderr.splitlines()[-1]
    assert line.startswith("phygitals: interrupted; ")
    assert "UNKNOWN whether " in line
    assert sent(server, path) == 1


def test_ctrl_c_twice_before_anything_left(server: Server) -> None:
    """While the owner's inventory is looked at, nothing is sold."""
    item = server.item()
    looked = []

    async def hold(request: Request) -> Response | None:
        looked.append(request)
        if len(looked) == 1:
            return None
        await pressing(server, 2)(request)
        await asyncio.sleep(60)
        return None

    server.replaced["/inventory/ann"] = hold
    result = server.run("sell", item.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.INTERRUPTED
    assert "interrupted, nothing was sent; go on with: phygitals sell " in result.stderr.splitlines()[-1]
    assert sent(server, "/buyback") == 0


def test_ctrl_c_as_the_answer_gets_lost() -> None:
    """What is behind the interrupt says more than it does."""
    interrupt = KeyboardInterrupt()
    interrupt.__cause__ = OutcomeUnknown("the answer was lost", readable={"amount": 1})
    with pytest.raises(Ending) as ended, sending("whether it was", lambda error: repr(error)):
        raise interrupt
    assert ended.value.code == Exit.FAILED
    assert ended.value.message.startswith("the answer was lost. UNKNOWN whether it was: ")
    assert "OutcomeUnknown" in ended.value.message


def test_ctrl_c_between_two_sales(server: Server) -> None:
    """The one under way is sold, the others are what to go on with."""
    first, second, third = server.item(), server.item(), server.item()
    server.replaced["/buyback"] = pressing(server, 1)
    result = server.run("sell", first.id, second.id, third.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.INTERRUPTED
    assert lines(result.stdout) == [[first.id, "sold for USD 8.50"]]
    again = shlex.join(["phygitals", "sell", "--user", "ann", second.id, third.id])
    assert result.stderr.splitlines()[-1] == f"phygitals: interrupted; go on with the other 2: {again}"
    assert sent(server, "/buyback") == 1


# Selling


def two_items(server: Server) -> tuple[Item, Item]:
    """Give ann two cards."""
    return server.item(name="Charizard", price="10.25"), server.item(name="Pikachu", price="0.75")


def test_sell_shows_the_offers_of_a_user(server: Server) -> None:
    """Each, and the sum; one named twice is sold once."""
    first, second = two_items(server)
    result = server.run("sell", first.id, second.id, first.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.DONE
    (asked,) = result.stderr.splitlines()
    assert asked.startswith("phygitals: sell in sandbox: Charizard for USD 10.25 (until 20")
    assert asked.endswith("; USD 11.00 in all, of ann")
    assert lines(result.stdout) == [[first.id, "sold for USD 10.25"], [second.id, "sold for USD 0.75"]]


def test_sell_without_a_user_shows_what_cards_they_are(server: Server) -> None:
    """The offer is not known then, and whose they are is not checked."""
    first, _ = two_items(server)
    result = server.run("sell", first.id, "--yes", "--json")
    assert "sell in sandbox: Charizard (market value USD 12.06); what is paid shows afterwards" in result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"item_id": first.id, "success": True, "amount": 10.25}
    ]


def test_somebody_elses_item_is_not_sold(server: Server) -> None:
    """It is told before anything is asked."""
    item = server.item("bob")
    server.item("ann")
    result = server.run("sell", item.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.FAILED
    assert result.stderr == f"phygitals: nothing was sent: 'ann' does not own {item.id!r}\n"
    assert sent(server, "/buyback") == 0


def test_a_refused_sale_leaves_the_others_their_turn(server: Server) -> None:
    """Status 1; what was refused is told on stderr and in the JSON."""
    first, second = two_items(server)
    server.sandbox.options.fail_sellbacks = 1
    result = server.run("sell", first.id, second.id, "--user", "ann", "--yes", "--json")
    assert result.exit_code == Exit.FAILED
    refused, sold = map(json.loads, result.stdout.splitlines())
    assert refused["error"]["class"] == "TransactionFailed"
    assert sold["amount"] == 0.75
    assert "sell_back: 400 Transaction failed" in result.stderr
    server.sandbox.options.fail_sellbacks = 1
    assert server.run("sell", first.id, "--user", "ann", "--yes").stdout == ""


def test_a_key_that_is_refused_meanwhile_ends_it(server: Server) -> None:
    """The others are not tried."""
    first, second = two_items(server)
    server.replaced["/buyback"] = lambda _: Response(401, {}, b'{"error": "Invalid API key"}')
    result = server.run("sell", first.id, second.id, "--user", "ann", "--yes")
    assert result.exit_code == Exit.KEY_REFUSED
    assert result.stderr.splitlines()[-1] == f"phygitals: not tried: {second.id}"
    assert sent(server, "/buyback") == 1


# Shipping


def test_ship_says_what_it_costs(server: Server) -> None:
    """Where to, how, and for how much; the cheapest way unless another is named."""
    first, second = two_items(server)
    asked = server.run("ship", first.id, second.id, *ADDRESS, answers="n\n").stderr.splitlines()[0]
    assert asked == (
        "phygitals: ship in sandbox: 2 items to Jane Doe, 123 Main St, Austin, US by USPS Ground Advantage, "
        "for USD 5.95 billed to you"
    )
    result = server.run("ship", first.id, *ADDRESS, "--service", "priority", "--yes", "--json")
    assert result.exit_code == Exit.DONE
    ordered = json.loads(result.stdout)
    assert ordered["quote"]["service"] == "Priority Mail"
    assert result.stderr.splitlines()[-1].endswith(f"follow it with: phygitals order {ordered['order_id']}")


def test_a_way_to_ship_that_is_not_offered(server: Server) -> None:
    """Those that are, are named."""
    first, _ = two_items(server)
    result = server.run("ship", first.id, *ADDRESS, "--service", "pigeon")
    assert result.exit_code == Exit.FAILED
    assert "no such way to ship; on offer: USPS Ground Advantage USD 5.95" in result.stderr


def test_an_address_from_a_file(server: Server, tmp_path: Path) -> None:
    """Options win over it."""
    first, _ = two_items(server)
    (tmp_path / "home.json").write_text(json.dumps({**HOME, "postal_code": "78701"}))
    result = server.run("ship", first.id, "--to", str(tmp_path / "home.json"), "--city", "Dallas", "--yes")
    assert result.exit_code == Exit.DONE
    assert "123 Main St, Dallas, US" in result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "is not JSON"), ("[]", "must be an object with name, line1"), ('{"nmae": "x"}', "must be an object with")],
)
def test_a_file_that_is_no_address(server: Server, tmp_path: Path, text: str, told: str) -> None:
    """It is told in one line, before anything is sent."""
    (tmp_path / "home.json").write_text(text)
    result = server.run("ship", "x", "--to", str(tmp_path / "home.json"))
    assert result.exit_code == Exit.USAGE
    assert told in result.stderr
    assert server.seen == []


def test_an_address_with_parts_missing(server: Server) -> None:
    """All of them are named at once."""
    result = server.run("ship", "x", "--name", "Jane")
    assert result.exit_code == Exit.USAGE
    assert "the address needs --line1, --city, --country" in result.stderr


@pytest.mark.parametrize("suggestion", [None, {"postal_code": "78701"}])
def test_an_address_that_is_rejected(server: Server, suggestion: dict[str, str] | None) -> None:
    """The vendor's suggestion is told, as the JSON that --to takes."""
    first, _ = two_items(server)
    server.sandbox.options.reject_addresses = 1
    server.sandbox.options.suggestion = suggestion
    result = server.run("ship", first.id, *ADDRESS, "--yes")
    assert result.exit_code == Exit.FAILED
    (line,) = result.stderr.splitlines()
    assert "Invalid destination address" in line
    if suggestion is not None:
        suggested = json.loads(line.partition("the vendor suggests: ")[2])
        assert suggested == {**HOME, "postal_code": "78701"}


def test_market_values_may_be_unknown(server: Server) -> None:
    """It says so."""
    item = server.item()
    body = json.dumps({"id": item.id, "name": "Card", "fmv": None, "metadata": {"name": "Card"}}).encode()
    server.replaced[f"/card/{item.id}"] = lambda _: Response(200, {"content-type": "application/json"}, body)
    assert "Card (market value USD unknown)" in server.run("sell", item.id, answers="n\n").stderr
    assert item.buyback_price == Decimal("8.50")
