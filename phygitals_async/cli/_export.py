"""What users own, as flat rows for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

import click

from phygitals_async.cli._endings import say
from phygitals_async.cli._files import whole_file
from phygitals_async.cli._output import json_option, on_terminal, print_json
from phygitals_async.cli._stores import existing_store, store_option

if TYPE_CHECKING:
    from phygitals_async.refresh import ExportFormat

# Those of `ExportFormat`; a test holds them against it.
FORMATS: Final = ("ndjson", "csv", "parquet")


@click.command()
@store_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="ndjson",
    show_default=True,
    help="Of the rows.",
)
@click.option("--raw", is_flag=True, help="Write texts to CSV as they are, also those a spreadsheet runs as formulas.")
@click.option("--output", type=click.Path(dir_okay=False), help="The file to write; by default stdout.")
@json_option
def export(place: str, form: ExportFormat, raw: bool, output: str | None, as_json: bool) -> None:
    """Write what the users of a store own, a row for each item.

    A file is there when all of it is written, and not before. With --json and --output it prints how many rows there
    are.
    """
    if output is None and form == "parquet" and on_terminal():
        msg = "Parquet is nothing to look at: name a file with --output."
        raise click.UsageError(msg)
    if output is None and as_json and form != "ndjson":
        msg = "--json without --output is --format ndjson."
        raise click.UsageError(msg)
    if raw and form != "csv":
        msg = "--raw is for --format csv: the other formats write texts as they are."
        raise click.UsageError(msg)
    import asyncio

    with whole_file(output) as to:
        count = asyncio.run(_export(place, to, form, raw=raw))
    if output is not None and as_json:
        print_json({"rows": count, "output": output, "format": form})
    else:
        say(f"{count:,} rows")


async def _export(place: str, to: BinaryIO, form: ExportFormat, *, raw: bool) -> int:
    from phygitals_async.refresh import export as export_rows

    store = existing_store(place)
    try:
        return await export_rows(store, to, form, raw=raw)
    finally:
        await store.aclose()
