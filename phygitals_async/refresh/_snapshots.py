"""Inventories as they are kept: compressed answers, and digests that tell without decoding whether anything changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from phygitals_async._structuring.converter import PhygitalsConverter, build_converter
from phygitals_async._structuring.rows import with_unreadable
from phygitals_async.errors import DecodeError, StoreCorrupt
from phygitals_async.models import Inventory
from phygitals_async.refresh._store import Store
from phygitals_async.version import VERSION

# Classes of the caller's own may hold anything besides what the models do, which alone is read back.
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_PAGE: Final = 200
# Cards are written over and over with the same names: the fastest level does nearly as well as the best.
_LEVEL: Final = 1
# Another version may read more out of the same answer.
_VERSION: Final = VERSION.encode()


def encode(value: object) -> bytes:
    """Return the JSON of models, with every digit of their numbers."""
    return _encode(value)


def compress(data: bytes) -> bytes:
    """Return data as it is kept."""
    return _compressor()(data, _LEVEL)


@cache
def _compressor() -> Callable[[bytes, int], bytes]:
    """Return what compresses fastest: ISA-L does it several times as fast as zlib, in the same format."""
    try:
        from isal.isal_zlib import compress
    except ImportError:
        return zlib.compress
    return compress


def decompress(kept: bytes) -> bytes:
    """Return what was kept.

    Raises:
        StoreCorrupt: It is not what `compress` made.
    """
    try:
        return zlib.decompress(kept)
    except zlib.error as error:
        msg = f"a part of the store cannot be read: {error}"
        raise StoreCorrupt(msg) from error


def decode(kept: bytes) -> Inventory:
    """Return the inventory of a snapshot, which is an answer of the API or what `encode` wrote.

    Raises:
        StoreCorrupt: It is none.
    """
    try:
        inventory = _converter().loads(decompress(kept), Inventory)
    except DecodeError as error:
        msg = f"a snapshot cannot be read: {error}"
        raise StoreCorrupt(msg) from error
    # None was kept that had any; an answer may have a field of that name.
    return with_unreadable(inventory, ()) if inventory.unreadable else inventory


def problems_of(data: bytes) -> Sequence[str]:
    """Return why `decode` would refuse what `encode` wrote, where a class or a hook of the caller's own made it."""
    try:
        _converter().loads(data, Inventory)
    except DecodeError as error:
        return error.problems
    return ()


@cache
def _converter() -> PhygitalsConverter:
    return build_converter()


def checksum(data: bytes) -> bytes:
    """Return what tells whether an answer is the same to the last character, and the same version of the library."""
    # Nobody gains by two answers that look alike: what counts is that processors have instructions for this one.
    return hashlib.sha1(data, usedforsecurity=False).digest() + _VERSION


def digests(inventory: Inventory) -> tuple[bytes, bytes]:
    """Return the digest of the cards, and the one of the cards with their sellback values, in whatever order."""
    # The hash of a number is the same in every process, and of 8.50 that of 8.5.
    prices = sorted([(item.id, hash(item.buyback_price)) for item in inventory.items])
    return _digest([card for card, _ in prices]), _digest(prices)


def _digest(values: list[Any]) -> bytes:
    return hashlib.blake2b(_encode(values), digest_size=16).digest()


async def read_inventories(store: Store) -> AsyncIterator[Inventory]:
    """Yield the last inventory of every user whom the API knew at the last look; memory stays flat.

    Raises:
        StoreError: The store cannot be read.
    """
    after = ""
    while page := await store.snapshot_page(after, _PAGE):
        for user, kept in page:
            if user.known:
                yield decode(kept)
            after = user.user_id
