"""What users own as flat rows, in the formats that other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeAlias

import msgspec

from phygitals_async._arithmetic import rounded
from phygitals_async._extras import load
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.models import Item
from phygitals_async.refresh._snapshots import encode, read_inventories
from phygitals_async.refresh._store import Store

ExportFormat: TypeAlias = Literal["ndjson", "csv", "parquet"]
"""What `export` writes: one JSON object a line, CSV, or Parquet, which needs the extra `parquet`."""

# Rows are written so many at a time.
_ROWS: Final = 20_000
# What a Parquet column of USD holds: 38 digits, so many of them behind the point.
_PLACES: Final = 12
# Names come from outside, and a spreadsheet runs a text that begins with one of these as a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode

_COLUMNS: Final[dict[str, Callable[[Item], Any]]] = {
    "item_id": lambda item: item.id,
    "name": lambda item: item.name,
    "buyback_price": lambda item: item.buyback_price,
    "claw_id": lambda item: item.claw_id,
    "claw_slug": lambda item: item.claw_slug,
    "type": lambda item: item.type and str(item.type),
    "purchased_at": lambda item: item.purchased_at,
    "buyback_expires_at": lambda item: item.buyback_expires_at,
    "mint_address": lambda item: item.mint_address,
    "collection_address": lambda item: item.collection_address,
    "token_standard": lambda item: item.token_standard,
    "image": lambda item: item.image or None,
    "back_image": lambda item: item.back_image,
    "description": lambda item: item.content.metadata.description,
    "attributes": lambda item: encode(item.content.metadata.attributes).decode(),
}
_NAMES: Final = ("user_id", *_COLUMNS)

Row: TypeAlias = tuple[Any, ...]


class _Writer(Protocol):
    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


async def export(
    store: Store,
    to: BinaryIO,
    format: ExportFormat,  # noqa: A002 - what everybody calls it.
    *,
    raw: bool = False,
) -> int:
    """Write what the users of a store own, a row for each item with its owner, and return how many rows.

    The columns are `user_id`, `item_id`, `name`, `buyback_price` (USD), `claw_id`, `claw_slug`, `type`, `purchased_at`
    and `buyback_expires_at` (UTC), `mint_address`, `collection_address`, `token_standard`, `image`, `back_image`,
    `description`, and `attributes`, a JSON text. Prices keep all their digits in NDJSON and CSV, 12 behind the point
    in Parquet. A user whom the API did not know at the last look owns nothing. Memory stays flat. In CSV, a text that
    a spreadsheet would run as a formula, since it begins with `=`, `+`, `-`, `@`, a tab or the end of a line, has an
    apostrophe before it.

    Args:
        store: Where `refresh` has kept it.
        to: A file opened for writing bytes, such as `sys.stdout.buffer`. It is not closed.
        format: `ndjson` for a JSON object on each line, `csv` with a line of names first, or `parquet`, which needs the
            extra `parquet`.
        raw: Whether texts are written to CSV as they are, for programs that read it and run nothing.

    Raises:
        ConfigurationError: The library for Parquet is not installed.
        InvalidArgumentError: There is no such format.
        StoreError: The store cannot be read.
    """
    if format not in _WRITERS:
        msg = f"format must be one of {', '.join(_WRITERS)}"
        raise InvalidArgumentError(msg)
    writer: _Writer = _Csv(to, raw=raw) if format == "csv" else _WRITERS[format](to)
    count = 0
    async for rows in _rows(store):
        writer.write(rows)
        count += len(rows)
    writer.close()
    return count


async def _rows(store: Store) -> AsyncIterator[list[Row]]:
    rows: list[Row] = []
    async for inventory in read_inventories(store):
        for item in inventory.items:
            rows.append((inventory.user_id, *[value(item) for value in _COLUMNS.values()]))
            if len(rows) == _ROWS:
                yield rows
                rows = []
    if rows:
        yield rows


class _Ndjson:
    def __init__(self, to: BinaryIO) -> None:
        self._to = to

    def write(self, rows: Iterable[Row]) -> None:
        self._to.writelines(_encode(dict(zip(_NAMES, row, strict=True))) + b"\n" for row in rows)

    def close(self) -> None:
        self._to.flush()


class _Csv:
    def __init__(self, to: BinaryIO, *, raw: bool = False) -> None:
        self._to = to
        self._cell = _plain if raw else _harmless
        self._write([_NAMES])

    def write(self, rows: Iterable[Row]) -> None:
        self._write([self._cell(value) for value in row] for row in rows)

    def _write(self, rows: Iterable[Iterable[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._to.write(text.getvalue().encode())

    def close(self) -> None:
        self._to.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if hasattr(value, "isoformat") else value


def _harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet runs; a price may begin with a minus, it is no text."""
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else _plain(value)


class _Parquet:
    def __init__(self, to: BinaryIO) -> None:
        self._arrow = arrow = load("pyarrow", "parquet")
        types = {
            "buyback_price": arrow.decimal128(38, _PLACES),
            "purchased_at": arrow.timestamp("us", tz="UTC"),
            "buyback_expires_at": arrow.timestamp("us", tz="UTC"),
        }
        self._schema = arrow.schema([(name, types.get(name, arrow.string())) for name in _NAMES])
        self._writer = load("pyarrow.parquet", "parquet").ParquetWriter(to, self._schema)

    def write(self, rows: list[Row]) -> None:
        columns = dict(zip(_NAMES, zip(*rows, strict=True), strict=True))
        columns["buyback_price"] = tuple(map(_placed, columns["buyback_price"]))
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _placed(price: Decimal) -> Decimal:
    with rounded():
        return price.quantize(Decimal(1).scaleb(-_PLACES))


_WRITERS: Final[dict[str, Callable[[BinaryIO], _Writer]]] = {"ndjson": _Ndjson, "csv": _Csv, "parquet": _Parquet}
