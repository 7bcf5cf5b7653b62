"""What commands print: a table on a terminal, columns between tabs elsewhere, or JSON."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TextIO

import click

from phygitals_async.cli._endings import plain

if TYPE_CHECKING:
    from phygitals_async import PhygitalsConverter

# The most rows of one table of a stream.
_TABLE: Final = 500

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line.")


def on_terminal() -> bool:
    """Whether somebody reads what is printed."""
    # A bar stands in front of stdout, and not in every version of rich does it answer for that.
    stdout: TextIO = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    return stdout.isatty()


def usd(amount: Decimal | None) -> str:
    """Return an amount in USD with cents, or nothing."""
    return "" if amount is None else f"{amount:,.2f}"


def moment(at: datetime | None, never: str = "") -> str:
    """Return a time to the minute, in UTC."""
    return never if at is None else f"{at:%Y-%m-%d %H:%M}"


def print_json(value: object) -> None:
    """Print models, or plain values that hold some, as one line of JSON, in the form the API documents."""
    # As bytes: JSON is UTF-8 whatever the terminal is.
    click.echo(_converter().dumps(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[str] = ()) -> None:
    """Print rows under the names of their columns, those in `right` flush right, in the width of the terminal."""
    columns = [plain(name) for name in columns]
    texts = [[plain(cell) for cell in row] for row in rows]
    if not on_terminal():
        for row in (columns, *texts):
            click.echo("\t".join(row))
        return
    from phygitals_async.cli._table import draw

    for line in draw(columns, texts, shutil.get_terminal_size().columns, right):
        click.echo(line)


class Lines:
    """Prints a stream of rows: as tables of some hundred rows on a terminal, elsewhere each at once.

    Args:
        columns: Their names.
        right: Those that are flush right.
    """

    def __init__(self, columns: Sequence[str], *, right: Collection[str] = ()) -> None:
        self._columns = columns
        self._right = right
        self._rows: list[Sequence[object]] = []
        self._has_head = False

    def add(self, row: Sequence[object]) -> None:
        """Print a row, now or with others."""
        self._rows.append(row)
        if not on_terminal() or len(self._rows) == _TABLE:
            self.flush()

    def flush(self) -> None:
        """Print what waits."""
        if not self._rows:
            return
        if on_terminal() or not self._has_head:
            print_table(self._columns, self._rows, right=self._right)
        else:
            for row in self._rows:
                click.echo("\t".join(map(plain, row)))
        self._has_head = True
        self._rows.clear()


@functools.cache
def _converter() -> PhygitalsConverter:
    from phygitals_async import build_converter

    return build_converter()
