"""The store that commands read and write, by its path."""

from __future__ import annotations

from pathlib import Path

import click

from phygitals_async.refresh import SqliteStore

store_option = click.option("--store", "place", required=True, metavar="PATH", help="The file of the store.")


def new_store(place: str) -> SqliteStore:
    """Return the store at a place; where there is none, it is made when it is first used."""
    return SqliteStore(place)


def existing_store(place: str) -> SqliteStore:
    """Return the store at a place.

    Raises:
        UsageError: There is none, and reading one would make it.
    """
    if not Path(place).exists():
        msg = f"there is no store at {place}: phygitals refresh makes one."
        raise click.UsageError(msg)
    return SqliteStore(place)
