"""What the runs of a store found changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from phygitals_async.cli._endings import Ending, Exit, go_on_with
from phygitals_async.cli._output import Lines, json_option, moment, print_json, usd
from phygitals_async.cli._stores import existing_store, store_option

if TYPE_CHECKING:
    from phygitals_async.refresh import Change, Store

# Seconds between two looks at a store that is followed.
_LOOK: Final = 1.0
# So many runs are named to whoever misspelt one.
_NAMED: Final = 5


@click.command()
@store_option
@click.option("--since", metavar="RUN", help="Only what later runs found.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="NUMBER", help="Only what comes after it.")
@click.option("--follow", is_flag=True, help="Go on when there is more, until Ctrl-C.")
@json_option
def changes(place: str, since: str | None, after: int, follow: bool, as_json: bool) -> None:
    """Tell what the runs found changed.

    With --json each change is a line, with the card before and after; its number is what --after takes.
    """
    from phygitals_async.cli._signals import run_until_interrupted

    last = [after]
    again = go_on_with(*click.get_current_context().obj)
    try:
        run_until_interrupted(
            _tell(place, since, last, follow=follow, as_json=as_json), f"phygitals: interrupted; run again: {again}"
        )
    except KeyboardInterrupt:
        msg = f"interrupted; go on with: {go_on_with(*_after(click.get_current_context().obj, last[0]))}"
        raise Ending(msg, Exit.INTERRUPTED) from None


def _after(arguments: Sequence[str], number: int) -> list[str]:
    """Return the arguments of a command that begins after another number."""
    given = iter(arguments)
    # With the number that follows the option, where it is a word of its own.
    kept = [word for word in given if not (word == "--after" and next(given)) and not word.startswith("--after=")]
    return [*kept, "--after", str(number)]


async def _tell(place: str, since: str | None, last: list[int], *, follow: bool, as_json: bool) -> None:
    import asyncio

    from phygitals_async.refresh import read_changes

    store = existing_store(place)
    lines = Lines(("at, UTC", "run", "user", "what", "card", "USD"), right=("USD",))
    try:
        if since is not None:
            await _check_run(store, since)
        while True:
            async for change in read_changes(store, since=since, after=last[0]):
                if as_json:
                    print_json(change)
                else:
                    lines.add(_row(change))
                last[0] = change.number
            lines.flush()
            if not follow:
                return
            await asyncio.sleep(_LOOK)
    finally:
        await store.aclose()


async def _check_run(store: Store, name: str) -> None:
    """Refuse a run that is not there, and name some that are.

    Raises:
        UsageError: The store has no run of this name.
    """
    names = [run.name for run in await store.runs()]
    if name not in names:
        last = f"the last ones are {', '.join(names[:_NAMED])}; phygitals runs lists them" if names else "it has none"
        msg = f"the store has no run named {name!r}: {last}."
        raise click.UsageError(msg)


def _row(change: Change) -> tuple[object, ...]:
    card = change.after or change.before
    prices = dict.fromkeys(usd(one.buyback_price) for one in (change.before, change.after) if one is not None)
    name = "" if card is None else card.name
    return (moment(change.at), change.run, change.user_id, change.kind, name, " > ".join(prices))
