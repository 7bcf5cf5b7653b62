"""A table that fits a terminal: long texts are shortened or wrapped, then columns go, then each row is a list."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

# A column's name means the same in every table; but what a row begins with is its name, which is always there, and
# whole. Texts in these may be shortened, down to so many cells,
_SHORTENED: Final = ("card", "name", "slug", "pack", "run")
_SHORTEST: Final = 16
# those in these go on in the next line of the same row, which nobody would copy,
_WRAPPED: Final = ("found", "because", "of", "order")
_NARROWEST: Final = 24
# and these are left out where there is no room, the first ones first. An id, an amount or a time is whole or not there.
_LEFT_OUT: Final = ("slug", "pack", "run", "most", "at, UTC", "started, UTC", "offer ends, UTC", "can be bought")
_LEAST: Final[dict[str, int]] = {**dict.fromkeys(_SHORTENED, _SHORTEST), **dict.fromkeys(_WRAPPED, _NARROWEST)}
_GAP: Final = "  "


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, right: Collection[str]) -> Iterator[str]:
    """Yield the lines of a table that is at most so many cells wide where that can be.

    Args:
        columns: Their names.
        rows: Texts in one line each.
        width: Of the terminal, in cells.
        right: The columns that are flush right.
    """
    natural = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    shown = list(range(len(columns)))
    for last in (None, *_LEFT_OUT):
        shown = [number for number in shown if number == 0 or columns[number] != last]
        widths = _fitted([columns[number] for number in shown], [natural[number] for number in shown], width)
        if widths is not None:
            break
    else:
        yield from _lists(columns, rows)
        return
    names = [columns[number] for number in shown]
    flush = [name in right for name in names]
    yield from _head(names, widths, flush)
    for row in rows:
        yield from _lines([row[number] for number in shown], names, widths, flush)
    if len(shown) < len(columns):
        left_out = ", ".join(name for name in columns if name not in names)
        yield f"(not shown in {width} columns: {left_out})"


def _fitted(names: Sequence[str], natural: Sequence[int], width: int) -> list[int] | None:
    """Return the widths of columns, or None where they cannot fit."""
    widths = list(natural)
    least = [min(cells, _LEAST.get(name, cells)) for name, cells in zip(names, natural, strict=True)]
    least[0] = natural[0]
    surplus = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while surplus > 0:
        # The widest of those that can be narrower.
        can = [number for number, cells in enumerate(widths) if cells > least[number]]
        if not can:
            return None
        widths[max(can, key=widths.__getitem__)] -= 1
        surplus -= 1
    return widths


def _head(names: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> Iterator[str]:
    yield _joined(names, widths, flush)
    yield "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))


def _lines(cells: Sequence[str], names: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> Iterator[str]:
    """Yield a row, in as many lines as its longest text needs."""
    columns = [_cut(*one) for one in zip(cells, names, widths, strict=True)]
    for number in range(max(map(len, columns))):
        line = [column[number] if number < len(column) else "" for column in columns]
        yield _joined(line, widths, flush)


def _cut(text: str, name: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    if name in _WRAPPED:
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [set_cell_size(text, width - 1).rstrip() + "…"]


def _joined(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> str:
    spaces = [" " * max(0, width - cell_len(text)) for text, width in zip(cells, widths, strict=True)]
    padded = [
        space + text if is_right else text + space for text, space, is_right in zip(cells, spaces, flush, strict=True)
    ]
    return _GAP.join(padded).rstrip()


def _lists(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield each row as lines with the name of the column first, and an empty line."""
    width = max(map(cell_len, columns))
    for row in rows:
        yield from (f"{name:<{width}}{_GAP}{text}" for name, text in zip(columns, row, strict=True) if text)
        yield ""
