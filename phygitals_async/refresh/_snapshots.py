"""Inventories as they are kept: compressed JSON, and digests that tell without decoding whether anything changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from phygitals_async._arithmetic import exact
from phygitals_async.errors import StoreCorrupt
from phygitals_async.models import Inventory
from phygitals_async.refresh._store import Store, StoredUser

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Inventory).decode
_PAGE: Final = 200
# Cards are written over and over with the same names: the fastest level does nearly as well as the best.
_LEVEL: Final = 1


def encode(value: object) -> bytes:
    """Return the JSON of models, with every digit of their numbers."""
    return _encode(value)


def compress(data: bytes) -> bytes:
    """Return data as it is kept."""
    return zlib.compress(data, _LEVEL)


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
    """Return the inventory of a snapshot.

    Raises:
        StoreCorrupt: It is none.
    """
    try:
        return _decode(decompress(kept))
    except msgspec.MsgspecError as error:
        msg = f"a snapshot cannot be read: {error}"
        raise StoreCorrupt(msg) from error


def checksum(data: bytes) -> bytes:
    """Return what tells whether a snapshot is the same down to the last character."""
    return b"%08x%08x" % (zlib.crc32(data), zlib.adler32(data))


def digests(inventory: Inventory) -> tuple[bytes, bytes]:
    """Return the digest of the cards, and the one of the cards with their sellback values, in whatever order."""
    cards = sorted([item.id for item in inventory.items])
    with exact():
        # 8.50 is 8.5.
        prices = sorted([f"{item.buyback_price.normalize()} {item.id}" for item in inventory.items])
    return _digest(cards), _digest(prices)


def _digest(texts: list[str]) -> bytes:
    # As JSON, since ids may hold any separator.
    return hashlib.blake2b(_encode(texts), digest_size=16).digest()


async def read_inventories(store: Store) -> AsyncIterator[Inventory]:
    """Yield every user's last snapshot, as the inventory it was; memory stays flat.

    A user whom the API does not know any more keeps the last one.

    Raises:
        StoreError: The store cannot be read.
    """
    after = ""
    while page := await store.snapshot_page(after, _PAGE):
        for user, kept in page:
            yield decode(kept)
            after = user.user_id


def is_unchanged(before: StoredUser | None, check: bytes) -> bool:
    """Whether a known user's new snapshot is the former one."""
    return before is not None and before.known and before.checksum == check
