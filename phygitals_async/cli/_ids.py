"""User ids from a file, or from stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ids_option = click.option(
    "--ids",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file with a user id in each line; - for stdin.",
)


def can_be_read_twice(file: str) -> bool:
    """Whether a file is one: no stdin, and no pipe."""
    return file != "-" and Path(file).is_file()


def count_ids(file: str) -> int | None:
    """Return how many ids a file has, which is unknown of what can be read only once.

    Raises:
        InvalidArgumentError: It has none, or is no text in UTF-8.
    """
    return sum(1 for _ in read_ids(file)) if can_be_read_twice(file) else None


def read_ids(file: str) -> Iterator[str]:
    """Yield the ids of a file, as they are needed.

    Raises:
        InvalidArgumentError: It has none, or is no text in UTF-8.
    """
    from phygitals_async.refresh._sources import lines

    if file == "-":
        yield from lines(sys.stdin.buffer)
        return
    with Path(file).open("rb") as opened:
        yield from lines(opened)
