"""What there is: packs, inventories, orders, purchases."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from phygitals_async.cli._client import Connection, connects
from phygitals_async.cli._endings import Ending, Exit, say
from phygitals_async.cli._errors import status_of
from phygitals_async.cli._ids import count_ids, ids_option, read_ids
from phygitals_async.cli._output import Lines, json_option, moment, print_json, print_table, usd
from phygitals_async.cli._progress import Meter
from phygitals_async.errors import AuthenticationError, PhygitalsError, PurchasePending

if TYPE_CHECKING:
    from phygitals_async import Failed, Found, Inventory, ShippingOrder
    from phygitals_async.sync import PhygitalsClient


@click.command()
@click.option("--platform", help="mainnet, the API's default, means first-party packs.")
@json_option
@connects
def packs(connection: Connection, platform: str | None, as_json: bool) -> None:
    """List the packs on offer."""
    with connection.open() as api:
        offered = api.list_packs(platform=platform)
    if as_json:
        print_json(offered)
        return
    rows = [
        (pack.id, pack.slug or "", pack.name, usd(pack.mint_price), pack.max_per_mint, _can_be_bought(pack.purchasable))
        for pack in offered
    ]
    print_table(("id", "slug", "name", "USD", "most", "can be bought"), rows, right=("USD", "most"))


def _can_be_bought(purchasable: bool) -> str:
    return "yes" if purchasable else "no"


@click.command()
@click.argument("user_ids", metavar="USER...", nargs=-1)
@ids_option
@click.option("--limit", type=click.IntRange(min=1), default=64, show_default=True, help="The most lookups in flight.")
@click.option("--rate", type=float, help="The most requests per second; else the pace is learnt.")
@json_option
@connects
def inventory(
    connection: Connection,
    user_ids: tuple[str, ...],
    file: str | None,
    limit: int,
    rate: float | None,
    as_json: bool,
) -> int:
    """Show what users own: the items of one user, a line for each of many.

    With --json each user is one line as soon as there is an answer, in no particular order; one who could not be
    looked up has an "error" in the place of "items".
    """
    if bool(user_ids) == bool(file):
        msg = "name some users, or give a file with --ids."
        raise click.UsageError(msg)
    if len(user_ids) == 1 and not as_json:
        with connection.open(rate=rate) as api:
            _show_items(api.get_inventory(user_ids[0]))
        return Exit.DONE
    total, keys = (len(user_ids), iter(user_ids)) if file is None else (count_ids(file), read_ids(file))
    return _show_many(connection, total, keys, limit=limit, rate=rate, as_json=as_json)


def _show_many(
    connection: Connection, total: int | None, keys: Iterable[str], *, limit: int, rate: float | None, as_json: bool
) -> int:
    from phygitals_async import Failed

    failures = 0
    code = Exit.DONE
    lines = None if as_json else Lines(("user", "items", "USD", "error"), right=("items", "USD"))
    with ExitStack() as stack:
        api = stack.enter_context(connection.open(rate=rate))
        meter = stack.enter_context(Meter(total)) if total != 1 else None
        outcomes = stack.enter_context(api.stream_inventories(keys, limit=limit))
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                failures += 1
                code = max(code, _tell(outcome.key, outcome.error, first=failures == 1))
            _show_outcome(outcome, lines)
            if meter is not None:
                progress = outcomes.progress
                meter.show(progress.done, progress.failed, waiting=progress.waiting)
        if lines is not None:
            lines.flush()
    return code


def _tell(user_id: str, error: PhygitalsError, *, first: bool) -> Exit:
    """Tell of the first failure in full: the others may be thousands, and are in the output."""
    if first or isinstance(error, AuthenticationError):
        say(f"{user_id}: {error}")
    status = status_of(error)
    return status if status is Exit.KEY_REFUSED else Exit.FAILED


def _show_outcome(outcome: Found[str, Inventory] | Failed[str], lines: Lines | None) -> None:
    from phygitals_async import Failed

    if lines is None:
        print_json({"user_id": outcome.key, "error": outcome.error} if isinstance(outcome, Failed) else outcome.value)
    elif isinstance(outcome, Failed):
        lines.add((outcome.key, "", "", type(outcome.error).__name__))
    else:
        lines.add((outcome.key, len(outcome.value.items), usd(outcome.value.total_buyback), ""))


def _show_items(owned: Inventory) -> None:
    rows = [
        (item.id, item.name, usd(item.buyback_price), moment(item.buyback_expires_at, "never"), item.claw_slug or "")
        for item in owned.items
    ]
    print_table(("id", "card", "USD", "offer ends, UTC", "pack"), rows, right=("USD",))
    say(f"{owned.user_id} owns {len(rows)} items, which sell back for USD {usd(owned.total_buyback)}")


@click.command()
@click.argument("order_id", metavar="ORDER")
@click.option("--watch", is_flag=True, help="Print it again at each change, until it has arrived or failed.")
@click.option(
    "--interval", type=float, default=60.0, show_default=True, metavar="SECONDS", help="Between two looks at it."
)
@json_option
@connects
def order(connection: Connection, order_id: str, watch: bool, interval: float, as_json: bool) -> None:
    """Show where a shipping order stands."""
    with connection.open() as api:
        if not watch:
            _show_order(api.get_shipping_order(order_id), as_json=as_json)
            return
        for state in api.watch_order(order_id, interval=interval):
            _show_order(state, as_json=as_json)


def _show_order(state: ShippingOrder, *, as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    facts = (
        ("order", state.order_id),
        ("status", state.status),
        ("carrier", " ".join(filter(None, (state.carrier, state.service)))),
        ("tracking", state.tracking_url or state.tracking_number or ""),
        ("USD", usd(state.amount)),
        ("ordered, UTC", moment(state.created_at)),
        ("shipped, UTC", moment(state.shipped_at)),
        ("delivered, UTC", moment(state.delivered_at)),
        ("error", state.error_message or ""),
        ("items", ", ".join(item.name for item in state.items)),
    )
    print_table(("", "order"), [fact for fact in facts if fact[1]])


@click.command()
@click.argument("session_id", metavar="SESSION")
@click.option(
    "--wait", type=float, default=90.0, show_default=True, metavar="SECONDS", help="How long to wait for it in all."
)
@json_option
@connects
def purchase(connection: Connection, session_id: str, wait: float, as_json: bool) -> None:
    """Wait for a purchase, and show what was pulled. It buys nothing."""
    with connection.open() as api:
        show_purchase(api, connection, session_id, wait, as_json=as_json)


def show_purchase(api: PhygitalsClient, connection: Connection, session_id: str, wait: float, *, as_json: bool) -> None:
    """Wait for a purchase, and print what was pulled.

    Raises:
        Ending: It is not there yet.
    """
    again = connection.command("purchase", session_id)
    try:
        bought = api.wait_for_purchase(session_id, deadline=wait)
    except KeyboardInterrupt:
        msg = f"interrupted: the purchase goes on without you; see what becomes of it with: {again}"
        raise Ending(msg, Exit.INTERRUPTED) from None
    except PurchasePending as error:
        msg = f"{error}; go on with: {again}"
        raise Ending(msg, Exit.INTERRUPTED) from None
    if as_json:
        print_json(bought)
        return
    rows = [(item.id, item.name, usd(item.buyback_price)) for item in bought.nfts]
    print_table(("id", "card", "USD"), rows, right=("USD",))
