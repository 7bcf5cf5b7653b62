"""User ids from a file, or from stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

ids_option = click.option(
    "--ids",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file with a user id in each line; - for stdin.",
)


def read_ids(file: str) -> tuple[int | None, Iterator[str]]:
    """Return how many ids a file has, which is unknown of a stream, and the ids, read as they are needed."""
    if file == "-":
        return None, _ids(sys.stdin.buffer)
    with Path(file).open("rb") as lines:
        total = sum(1 for _ in _ids(lines))

    def read() -> Iterator[str]:
        with Path(file).open("rb") as lines:
            yield from _ids(lines)

    return total, read()


def _ids(lines: Iterable[bytes]) -> Iterator[str]:
    try:
        # Editors on Windows begin a file with a mark.
        yield from filter(None, (line.decode("utf-8-sig").rstrip("\r\n") for line in lines))
    except UnicodeDecodeError:
        msg = "the user ids are not UTF-8 text."
        raise click.UsageError(msg) from None
