"""A page about what users own and what changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from phygitals_async.cli._endings import say
from phygitals_async.cli._files import whole_file
from phygitals_async.cli._output import json_option, on_terminal, print_json
from phygitals_async.cli._stores import existing_store, store_option

if TYPE_CHECKING:
    from phygitals_async.cli._report_facts import Facts


@click.command()
@store_option
@click.option("--output", type=click.Path(dir_okay=False), help="The page to write; by default stdout.")
@json_option
def report(place: str, output: str | None, as_json: bool) -> None:
    """Write a page with charts of what users own and what changed.

    It is one HTML file which needs nothing else. With --json it prints the facts and writes no page but that of
    --output. Charts need the extra `report`.
    """
    if output is None and not as_json and on_terminal():
        msg = "a page of HTML is nothing to read here: name a file with --output, such as report.html."
        raise click.UsageError(msg)
    import asyncio

    now = datetime.now(UTC)
    facts = asyncio.run(_read(place, now))
    if output is not None or not as_json:
        from phygitals_async.cli._report_page import render

        page = render(facts, now).encode()
        with whole_file(output) as to:
            to.write(page)
    if as_json:
        print_json(_plain(facts))
    elif output is not None:
        say(f"written to {output}")


async def _read(place: str, now: datetime) -> Facts:
    from phygitals_async.cli._report_facts import read_facts

    store = existing_store(place)
    try:
        return await read_facts(store, now)
    finally:
        await store.aclose()


def _plain(facts: Facts) -> dict[str, object]:
    runs = [
        {"name": run.name, "started_at": run.started_at, "value": value, "changes": facts.kinds[run.name]}
        for run, value in zip(facts.runs, facts.values, strict=True)
    ]
    best, expiring = (
        [{"user_id": user_id, "item": item} for _, user_id, item in owned] for owned in (facts.best, facts.expiring)
    )
    return {
        "users": facts.users,
        "items": facts.items,
        "value": facts.value,
        "expiring_items": facts.expiring_items,
        "expiring_value": facts.expiring_value,
        "runs": runs,
        "best": best,
        "expiring": expiring,
    }
