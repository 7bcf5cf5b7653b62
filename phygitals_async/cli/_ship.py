"""Shipping items to an address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from phygitals_async.cli._asking import ask, sending, yes_option
from phygitals_async.cli._client import Connection, connects, records
from phygitals_async.cli._endings import Ending, Exit, say
from phygitals_async.cli._output import json_option, print_json, usd
from phygitals_async.errors import AddressRejected, OutcomeUnknown
from phygitals_async.models import Destination, ShippingQuote, ShippingQuotes

_PARTS = {a.name: a.default is attrs.NOTHING for a in attrs.fields(Destination)}


def _address(command: Any) -> Any:
    """Give a command an option for each part of an address."""
    for part in reversed(_PARTS):
        command = click.option(f"--{part.replace('_', '-')}", part, help="Of the address.")(command)
    return command


@click.command()
@click.argument("item_ids", metavar="ITEM...", nargs=-1, required=True)
@click.option("--to", type=click.Path(exists=True, dir_okay=False), help="A JSON file with the parts of the address.")
@_address
@click.option("--service", help="Carrier or service, or a part of its name; by default the cheapest.")
@click.option("--user", help="Whose items they have to be. Nothing else keeps one user from shipping another's.")
@yes_option
@json_option
@connects
@records
def ship(
    connection: Connection,
    item_ids: tuple[str, ...],
    to: str | None,
    service: str | None,
    user: str | None,
    yes: bool,
    as_json: bool,
    **parts: str | None,
) -> None:
    """Ship items to an address. Moves goods, and bills you.

    It cannot be cancelled. The address comes from --to, from the options, or from both: the options win.
    """
    destination = _destination(to, parts)
    with connection.open() as api:
        try:
            quotes = api.quote_shipping(item_ids, destination, owner=user)
        except AddressRejected as error:
            raise Ending(_with_suggestion(error), Exit.FAILED) from None
        quote = _choose(quotes, service)
        where = connection.settings().environment
        what = "1 item" if len(item_ids) == 1 else f"{len(item_ids)} items"
        ask(
            f"ship in {where}: {what} to {destination.name}, {destination.line1}, {destination.city}, "
            f"{destination.country} by {_name(quote)}, for USD {usd(quote.amount)} billed to you",
            yes=yes,
        )

        def find_out(error: OutcomeUnknown | None) -> str:
            if error is not None and "order_id" in error.readable:
                return f"The answer named an order: {connection.command('order', error.readable['order_id'])}"
            look = connection.command("inventory", "USER" if user is None else user)
            lost = "they are in an order whose id is lost: ask the vendor."
            return f"If {look} no longer shows the items, {lost}{connection.hint}"

        with sending("whether it was ordered", find_out):
            accepted = api.request_shipping(quote.id)
    # Before it is printed: where that fails, nothing else would tell of the order.
    say(f"keep the order's id, nothing lists orders; follow it with: {connection.command('order', accepted.order_id)}")
    if as_json:
        print_json({"order_id": accepted.order_id, "status": accepted.status, "quote": quote})
    else:
        click.echo(f"{accepted.order_id}\tordered by {_name(quote)} for USD {usd(quote.amount)}")


def _destination(file: str | None, options: Mapping[str, str | None]) -> Destination:
    parts = _read(file) | {part: text for part, text in options.items() if text is not None}
    missing = [part for part, needed in _PARTS.items() if needed and not parts.get(part)]
    if missing:
        shown = ", ".join(f"--{part.replace('_', '-')}" for part in missing)
        msg = f"the address needs {shown}: options, or parts of the file given with --to."
        raise click.UsageError(msg)
    return Destination(**parts)


def _read(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        parts = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        msg = f"{file} is not JSON: {error}."
        raise click.UsageError(msg) from None
    unknown = sorted(set(parts) - set(_PARTS)) if isinstance(parts, dict) else ["an object"]
    if unknown or not isinstance(parts, dict):
        msg = f"{file} must be an object with {', '.join(_PARTS)}."
        raise click.UsageError(msg)
    return parts


def _with_suggestion(error: AddressRejected) -> str:
    if error.suggestion is None:
        return f"{error} {error.details}"
    suggested = json.dumps(dict(error.suggestion.parts()))
    return f"{error} {error.details}; the vendor suggests: {suggested}"


def _choose(quotes: ShippingQuotes, service: str | None) -> ShippingQuote:
    fitting = [quote for quote in quotes.quotes if service is None or service.lower() in _name(quote).lower()]
    if not fitting:
        offered = ", ".join(f"{_name(quote)} USD {usd(quote.amount)}" for quote in quotes.quotes) or "none"
        msg = f"no such way to ship; on offer: {offered}"
        raise Ending(msg, Exit.FAILED)
    return min(fitting, key=lambda quote: quote.amount)


def _name(quote: ShippingQuote) -> str:
    return f"{quote.carrier} {quote.service}"
