"""The runs of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from attrs import asdict

from phygitals_async.cli._output import json_option, moment, print_json, print_table
from phygitals_async.cli._stores import existing_store, store_option

if TYPE_CHECKING:
    from phygitals_async.refresh import Run


@click.command()
@store_option
@json_option
def runs(place: str, as_json: bool) -> None:
    """List the runs of a store, the last one first.

    Their names are what --since of phygitals changes takes, and --run of phygitals refresh.
    """
    import asyncio

    listed = asyncio.run(_read(place))
    if as_json:
        for run in listed:
            # By hand: a model leaves out what is its default.
            print_json(asdict(run, recurse=False))
        return
    rows = [
        (
            run.name,
            moment(run.started_at),
            moment(run.finished_at, "not yet"),
            f"{run.done:,}",
            f"{run.failed:,}",
            f"{run.changes:,}",
        )
        for run in listed
    ]
    columns = ("run", "started, UTC", "finished, UTC", "users", "failed", "changes")
    print_table(columns, rows, right=("users", "failed", "changes"))


async def _read(place: str) -> Sequence[Run]:
    store = existing_store(place)
    try:
        return await store.runs()
    finally:
        await store.aclose()
