"""The entries of a journal as stores keep them."""

from __future__ import annotations

from typing import Final

import msgspec

from phygitals_async._calls.journal import JournalEntry
from phygitals_async.errors import StoreCorrupt

encode_entry: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(JournalEntry).decode


def decode_entry(kept: str | bytes) -> JournalEntry:
    """Return what `encode_entry` wrote.

    Raises:
        StoreCorrupt: It did not write this.
    """
    try:
        return _decode(kept)
    except msgspec.MsgspecError as error:
        msg = f"an entry of the journal cannot be read: {error}"
        raise StoreCorrupt(msg) from error
