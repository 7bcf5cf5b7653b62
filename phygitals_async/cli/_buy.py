"""Buying pulls of a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from phygitals_async.cli._asking import ask, sending, yes_option
from phygitals_async.cli._browse import show_purchase
from phygitals_async.cli._client import Connection, connects, records
from phygitals_async.cli._endings import Ending, Exit, say
from phygitals_async.cli._output import json_option, usd
from phygitals_async.errors import OutcomeUnknown, UserNotFound

if TYPE_CHECKING:
    from phygitals_async.models import Pack
    from phygitals_async.sync import PhygitalsClient


@click.command()
@click.argument("pack_name", metavar="PACK")
@click.argument("user_id", metavar="USER")
@click.option("--amount", type=click.IntRange(min=1), default=1, show_default=True, help="Pulls to buy.")
@click.option(
    "--wait", type=float, default=90.0, show_default=True, metavar="SECONDS", help="How long to wait for the cards."
)
@yes_option
@json_option
@connects
@records
def buy(
    connection: Connection, pack_name: str, user_id: str, amount: int, wait: float, yes: bool, as_json: bool
) -> None:
    """Buy pulls of a pack for a user. Moves money.

    PACK is an id or a slug. It is sent at most once. The session it prints is the only handle on the purchase.
    """
    with connection.open() as api:
        pack = _find(api, pack_name, amount, connection.command("packs"))
        before = _owned(api, user_id, pack)
        price, total = usd(pack.mint_price), usd(pack.mint_price * amount)
        where = connection.settings().environment
        ask(f"buy in {where}: {amount} x {pack.name} at USD {price} = USD {total}, for {user_id}", yes=yes)

        def find_out(error: OutcomeUnknown | None) -> str:
            if error is not None and "session_id" in error.readable:
                return f"The answer named the purchase: {connection.command('purchase', error.readable['session_id'])}"
            look = connection.command("inventory", user_id)
            return f"{user_id} had {before} items of this pack; if {look} shows more, it was bought.{connection.hint}"

        with sending("whether it was bought", find_out) as patience:
            session = api.start_purchase(pack.id, amount, user_id).session_id
        say(f"bought; the session is {session}")
        if patience.is_over:
            msg = f"interrupted; see what was pulled with: {connection.command('purchase', session)}"
            raise Ending(msg, Exit.INTERRUPTED)
        show_purchase(api, connection, session, wait, as_json=as_json)


def _find(api: PhygitalsClient, name: str, amount: int, listing: str) -> Pack:
    offered = api.list_packs()
    # An id before a slug: the API's own name for it.
    found = [pack for pack in offered if pack.id == name] or [pack for pack in offered if pack.slug == name]
    if not found:
        msg = f"no pack on offer has the id or slug {name!r}: {listing} lists them"
        raise Ending(msg, Exit.FAILED)
    pack = found[0]
    if not pack.purchasable:
        msg = f"{pack.name} cannot be bought now: it is out of stock or disabled"
        raise Ending(msg, Exit.FAILED)
    if amount > pack.max_per_mint:
        msg = f"{pack.name} sells at most {pack.max_per_mint} pulls at a time, not {amount}."
        raise click.UsageError(msg)
    return pack


def _owned(api: PhygitalsClient, user_id: str, pack: Pack) -> int:
    """Count the user's items of a pack, which is what tells later whether a purchase without an answer was made."""
    try:
        return sum(item.claw_id == pack.id for item in api.get_inventory(user_id).items)
    except UserNotFound:
        return 0
