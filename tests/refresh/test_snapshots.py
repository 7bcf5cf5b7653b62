"""What is kept of an inventory is read back the same, in whatever way it is kept."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from phygitals_async import Inventory, StoreCorrupt
from phygitals_async.refresh import _snapshots
from structuring_support import CONVERTER, INVENTORIES, INVENTORY

DATA = b'{"user_id":"ann","items":[' + b'{"id":"1"},' * 1000 + b"{}]}"


@pytest.fixture(autouse=True)
def found_anew() -> Iterator[None]:
    """What compresses is found once in a process: find it before each test, and after the last."""
    _snapshots._compressor.cache_clear()
    yield
    _snapshots._compressor.cache_clear()


def test_isal_where_it_is_installed() -> None:
    """In zlib's format, so a store may be read where it is not."""
    isal_zlib = pytest.importorskip("isal.isal_zlib", reason="not run: isal is not installed")
    assert _snapshots._compressor() is isal_zlib.compress
    kept = _snapshots.compress(DATA)
    assert len(kept) < len(DATA) / 10
    assert zlib.decompress(kept) == _snapshots.decompress(kept) == DATA


def test_zlib_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower."""
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert _snapshots._compressor() is zlib.compress
    assert _snapshots.decompress(_snapshots.compress(DATA)) == DATA


def test_what_was_not_compressed_is_told() -> None:
    """The file was written by somebody else, or damaged."""
    with pytest.raises(StoreCorrupt, match="a part of the store cannot be read"):
        _snapshots.decompress(DATA)


@given(INVENTORIES)
def test_an_answer_and_what_was_made_of_it_are_read_back_the_same(plain: dict[str, Any]) -> None:
    """With every digit of its prices."""
    body = json.dumps(plain).encode()
    inventory = CONVERTER.loads(body, Inventory)
    for data in (body, _snapshots.encode(inventory)):
        kept = _snapshots.decode(_snapshots.compress(data))
        # The repr tells 1 from 1.0.
        assert (kept, repr(kept)) == (inventory, repr(inventory))


@pytest.mark.parametrize("data", [b"", b"[]", INVENTORY[:-2], INVENTORY.replace(b'"claw_id"', b'"claw"')])
def test_what_is_no_inventory_is_told(data: bytes) -> None:
    """It is compressed as all is, but by somebody else."""
    with pytest.raises(StoreCorrupt, match="a snapshot cannot be read: "):
        _snapshots.decode(_snapshots.compress(data))
