"""Selling items back."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from phygitals_async.cli._asking import ask, sending, yes_option
from phygitals_async.cli._client import Connection, connects, records
from phygitals_async.cli._endings import Ending, Exit, say
from phygitals_async.cli._errors import status_of
from phygitals_async.cli._output import json_option, moment, print_json, usd
from phygitals_async.errors import AuthenticationError, NotOwned, OutcomeUnknown, PhygitalsError

if TYPE_CHECKING:
    from phygitals_async.models import Sellback
    from phygitals_async.sync import PhygitalsClient


@click.command()
@click.argument("item_ids", metavar="ITEM...", nargs=-1, required=True)
@click.option(
    "--user",
    help="Whose items they have to be. Nothing else keeps one user from selling another's: give it if you can.",
)
@yes_option
@json_option
@connects
@records
def sell(connection: Connection, item_ids: tuple[str, ...], user: str | None, yes: bool, as_json: bool) -> int:
    """Sell items back. Moves money.

    They are sold one after the other. With --user it shows what each is offered, and makes sure that it is theirs.
    Production prices at the moment of the sale: what is paid may differ.
    """
    left = list(dict.fromkeys(item_ids))
    code = Exit.DONE
    with connection.open() as api:
        ask(f"sell in {connection.settings().environment}: {_shown(api, left, user)}", yes=yes)
        try:
            while left and code is not Exit.KEY_REFUSED:
                code = max(code, _sell(api, connection, left, user, as_json=as_json))
        except KeyboardInterrupt:
            if not left:
                return code
            again = connection.command("sell", *left, user=user, journal=connection.typed_journal)
            msg = f"interrupted; go on with the other {len(left)}: {again}"
            raise Ending(msg, Exit.INTERRUPTED) from None
    if left:
        say(f"not tried: {', '.join(left)}")
    return code


def _shown(api: PhygitalsClient, item_ids: Sequence[str], user: str | None) -> str:
    """Say what is sold, and what it is offered, or is worth where nobody says whose it is."""
    if user is None:
        cards = [api.get_card(item_id) for item_id in item_ids]
        listed = ", ".join(f"{card.name} (market value USD {usd(card.fmv) or 'unknown'})" for card in cards)
        return f"{listed}; what is paid shows afterwards (--user USER shows the offer, and checks whose it is)"
    owned = {item.id: item for item in api.get_inventory(user).items}
    missing = [item_id for item_id in item_ids if item_id not in owned]
    if missing:
        raise NotOwned(owner=user, item_ids=missing)
    items = [owned[item_id] for item_id in item_ids]
    listed = ", ".join(
        f"{item.name} for USD {usd(item.buyback_price)} (until {moment(item.buyback_expires_at, 'any time')})"
        for item in items
    )
    return f"{listed}; USD {usd(sum((item.buyback_price for item in items), Decimal(0)))} in all, of {user}"


def _sell(api: PhygitalsClient, connection: Connection, left: list[str], user: str | None, *, as_json: bool) -> Exit:
    """Sell the first of the items that are left, and take it off the list."""
    item_id = left.pop(0)

    def find_out(error: OutcomeUnknown | None) -> str:
        look = connection.command("inventory", "USER" if user is None else user)
        named = "" if error is None or "amount" not in error.readable else f" for USD {usd(error.readable['amount'])}"
        rest = f" Not tried: {', '.join(left)}." if left else ""
        return f"If {look} no longer shows {item_id}, it was sold{named}.{rest}{connection.hint}"

    try:
        with sending(f"whether {item_id} was sold", find_out) as patience:
            paid = api.sell_back(item_id, owner=user)
    except PhygitalsError as error:
        say(str(error))
        if as_json:
            print_json({"item_id": item_id, "error": error})
        status = status_of(error)
        return status if isinstance(error, AuthenticationError) else Exit.FAILED
    try:
        _show(item_id, paid, as_json=as_json)
    except OSError:
        # It was sold all the same, and somebody has to know.
        say(f"{item_id} was sold for USD {usd(paid.amount)}; not tried: {', '.join(left) or 'none'}")
        raise
    if patience.is_over:
        raise KeyboardInterrupt
    return Exit.DONE


def _show(item_id: str, paid: Sellback, *, as_json: bool) -> None:
    if as_json:
        print_json({"item_id": item_id, "success": paid.success, "amount": paid.amount})
    else:
        click.echo(f"{item_id}\tsold for USD {usd(paid.amount)}")
