"""The parts that the ids of a run are cut into, each for one worker."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from phygitals_async.refresh._store import Part

# The first parts are so small, and so many of them are, before they double, and double again, up to the largest.
_FIRST_PART_USERS: Final = 256
_PARTS_OF_A_SIZE: Final = 16
_MOST_PART_USERS: Final = 4096


async def in_parts(first: list[str], others: AsyncIterator[list[str]]) -> AsyncGenerator[tuple[Part, list[str]], None]:
    """Cut ids into parts, numbered from 1: the part 0 is looked up here."""
    number, ids = 1, first
    while True:
        size = _size(number)
        while len(ids) < size and (group := await anext(others, None)):
            ids = ids + group
        if not ids:
            return
        yield _part(number, ids[:size]), ids[:size]
        number, ids = number + 1, ids[size:]


def _size(number: int) -> int:
    """Return how many users a part has: few at first, so that a short run too has parts for many workers."""
    return min(_FIRST_PART_USERS << ((number - 1) // _PARTS_OF_A_SIZE), _MOST_PART_USERS)


def _part(number: int, ids: list[str]) -> Part:
    # Whatever was given for an id has a text.
    return Part(number, digest(repr(ids).encode()))


def digest(data: bytes) -> bytes:
    """Return what tells data from others."""
    return hashlib.blake2b(data, digest_size=16).digest()
