"""The store that commands read and write, by its address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from phygitals_async.refresh import Store


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


store_option = click.option(
    "--store",
    "place",
    required=True,
    envvar="PHYGITALS_STORE",
    metavar="PATH-OR-URL",
    shell_complete=_complete,
    help="The file of the store, or the postgresql:// URL of one; else PHYGITALS_STORE.",
)


def journal_option(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that names a journal."""
    return click.option(
        "--journal",
        required=required,
        envvar="PHYGITALS_JOURNAL",
        metavar="PATH-OR-URL",
        shell_complete=_complete,
        help="The store that calls which move money or goods are written down in; else PHYGITALS_JOURNAL.",
    )


def existing_store(place: str) -> Store:
    """Return the store at an address.

    Raises:
        UsageError: It is that of a file which is not there; reading a store would make it.
    """
    if "://" not in place and not Path(place).exists():
        msg = f"there is no store at {place}: a refresh makes one, and the first call with a journal."
        raise click.UsageError(msg)
    return store_at(place)


def store_at(place: str) -> Store:
    """Return the store at an address, which is made there if need be.

    Raises:
        UsageError: There is no folder for it.
    """
    if "://" not in place and not (folder := Path(place).absolute().parent).is_dir():
        msg = f"there is no folder {folder} for a store."
        raise click.UsageError(msg)
    from phygitals_async.refresh import open_store

    return open_store(place)
