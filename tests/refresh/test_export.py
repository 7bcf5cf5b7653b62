"""What users own as rows, for other programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from phygitals_async import ConfigurationError, InvalidArgumentError, PhygitalsClient, Response, Sandbox
from phygitals_async.models import Attribute, ItemSource
from phygitals_async.refresh import MemoryStore, export, refresh
from phygitals_transports import MemoryTransport

pytestmark = pytest.mark.anyio

AT = datetime(2026, 4, 18, 19, 5, 14, 123456, tzinfo=UTC)


async def a_store() -> MemoryStore:
    """Return a store of users whose cards have everything that is hard to write."""
    sandbox, store = (
        Sandbox(
            seed=1,
        ),
        MemoryStore(),
    )
    sandbox.add_item(
        "a",
        id="v1|1|0",
        name='Juan "El Niño" Soto,\nRC /25',
        buyback_price=Decimal("8.50"),
        attributes=(Attribute("Year", 2024), Attribute("Grade", "PSA 10")),
        type=ItemSource.EBAY,
        purchased_at=AT,
    )
    sandbox.add_item("b", id="2", name="ж", buyback_price=Decimal("123456789012.123456"), type=None, purchased_at=AT)
    sandbox.add_item("b", id="3", name="Mewtwo", buyback_price=Decimal("0.1"), type=None, purchased_at=AT)
    sandbox.add_user("nothing")
    gone = False

    def answer(request: Any) -> Response:
        return (
            Response(404, {}, b'{"error": "User not found"}')
            if gone and request.url.endswith("/gone")
            else sandbox(request)
        )

    sandbox.add_item("gone", name="Pikachu", buyback_price=Decimal(1))
    async with PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test") as api:
        await refresh(api, ["a", "b", "nothing", "gone"], store)
        gone = True
        await refresh(api, None, store)
    return store


async def written(format: str, store: MemoryStore | None = None) -> bytes:  # noqa: A002 - as in `export`.
    """Return what an export writes."""
    file: Any = io.BytesIO()
    kind: Any = format
    assert await export(store or await a_store(), file, kind) == (3 if store is None else 0)
    assert not file.closed
    content: bytes = file.getvalue()
    return content


@pytest.mark.parametrize("rows_at_a_time", [1, 20_000])
async def test_ndjson(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    """An object on each line; numbers have all their digits."""
    monkeypatch.setattr("phygitals_async.refresh._export._ROWS", rows_at_a_time)
    lines = (await written("ndjson")).splitlines()
    rows = [json.loads(line, parse_float=Decimal) for line in lines]
    assert [(row["user_id"], row["item_id"], row["buyback_price"]) for row in rows] == [
        ("a", "v1|1|0", Decimal("8.5")),
        ("b", "2", Decimal("123456789012.123456")),
        ("b", "3", Decimal("0.1")),
    ]
    assert rows[0]["name"] == 'Juan "El Niño" Soto,\nRC /25'
    assert rows[0]["type"] == "ebay"
    assert (rows[1]["type"], rows[0]["mint_address"]) == (None, None)
    assert rows[0]["purchased_at"].startswith("2026-04-18T19:05:14.123")
    assert json.loads(rows[0]["attributes"]) == [
        {"trait_type": "Year", "value": 2024},
        {"trait_type": "Grade", "value": "PSA 10"},
    ]


async def test_csv() -> None:
    """A line of names, and what programs that read CSV make of the rest."""
    text = (await written("csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["user_id"], row["item_id"], row["buyback_price"]) for row in rows] == [
        ("a", "v1|1|0", "8.5"),
        ("b", "2", "123456789012.123456"),
        ("b", "3", "0.1"),
    ]
    assert rows[0]["name"] == 'Juan "El Niño" Soto,\nRC /25'
    assert datetime.fromisoformat(rows[0]["purchased_at"]).utcoffset() is not None
    assert rows[0]["mint_address"] == ""
    assert text.startswith("user_id,item_id,name,buyback_price,")
    assert (await written("csv", MemoryStore())).count(b"\n") == 1


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n="])
async def test_a_name_that_is_a_formula(start: str) -> None:
    """A spreadsheet would run it from a CSV: there it has an apostrophe, unless somebody wants it raw."""
    formula = f"{start}cmd|' /C calc'!A0"
    sandbox, store = Sandbox(seed=1), MemoryStore()
    sandbox.add_item("-ann", name=formula, buyback_price=Decimal(-1))
    async with PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test") as api:
        await refresh(api, ["-ann"], store)
    written = {}
    for raw in (False, True):
        file = io.BytesIO()
        await export(store, file, "csv", raw=raw)
        (row,) = csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
        written[raw] = (row["user_id"], row["name"], row["buyback_price"])
    assert written == {False: ("'-ann", f"'{formula}", "-1.0"), True: ("-ann", formula, "-1.0")}
    file = io.BytesIO()
    await export(store, file, "ndjson")
    assert json.loads(file.getvalue())["name"] == formula


@pytest.mark.parametrize("rows_at_a_time", [1, 20_000])
async def test_parquet(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    """Prices are decimals, times are times."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr("phygitals_async.refresh._export._ROWS", rows_at_a_time)
    table = parquet.read_table(io.BytesIO(await written("parquet")))
    rows = table.to_pylist()
    assert [(row["user_id"], row["item_id"], row["buyback_price"]) for row in rows] == [
        ("a", "v1|1|0", Decimal("8.5")),
        ("b", "2", Decimal("123456789012.123456")),
        ("b", "3", Decimal("0.1")),
    ]
    assert rows[0]["purchased_at"].replace(microsecond=0) == AT.replace(microsecond=0)
    assert rows[0]["purchased_at"].utcoffset() is not None
    assert str(table.schema.field("buyback_price").type) == "decimal128(38, 12)"
    empty = parquet.read_table(io.BytesIO(await written("parquet", MemoryStore())))
    assert (empty.num_rows, empty.schema) == (0, table.schema)


async def test_the_library_for_parquet_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, it is told how to get it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'phygitals-async\[parquet\]'"):
        await written("parquet")


async def test_an_unknown_format_is_refused() -> None:
    """Before anything is written."""
    with pytest.raises(InvalidArgumentError, match="ndjson, csv, parquet"):
        await written("xlsx")
