"""What is kept of an inventory is the same whatever compressed it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator

import pytest

from phygitals_async import StoreCorrupt
from phygitals_async.refresh import _snapshots

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
