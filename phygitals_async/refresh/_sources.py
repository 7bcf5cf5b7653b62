"""The ids of a refresh, from wherever they come, a group at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterable, Iterator
from inspect import isasyncgen, isgenerator
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio.lowlevel

from phygitals_async._bulk.keys import check_keys
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.refresh._store import Store

UserIds: TypeAlias = Iterable[str] | AsyncIterable[str] | os.PathLike[str]

GROUP: Final = 256
# After so many ids, other tasks have their turn.
_BREATH: Final = 4096


def check_ids(user_ids: UserIds | None) -> None:
    """Refuse what cannot be the ids of a refresh.

    Raises:
        InvalidArgumentError: It is a single string, cannot be iterated, or is a file that cannot be read.
    """
    if isinstance(user_ids, os.PathLike):
        try:
            # A pipe can be opened once.
            if not Path(user_ids).is_fifo():
                Path(user_ids).open("rb").close()
        except OSError as error:
            msg = f"the file of user ids cannot be read: {error.strerror}"
            raise InvalidArgumentError(msg) from error
    elif user_ids is not None:
        check_keys(user_ids)


def groups(user_ids: UserIds | None, store: Store) -> AsyncGenerator[list[str], None]:
    """Yield ids in lists of up to 256, and close what they came from."""
    if user_ids is None:
        return _of_store(store)
    if isinstance(user_ids, os.PathLike):
        return _of_iterable(_lines(user_ids))
    if isinstance(user_ids, AsyncIterable):
        return _of_async_iterable(user_ids)
    return _of_iterable(user_ids)


async def fingerprint(user_ids: UserIds | None, first: list[str]) -> bytes:
    """Return a digest that tells ids from others, whatever order they come in.

    It is one of all of them where they can be read twice: a file, a collection, the users of a store. Of a pipe or an
    iterator it is one of the first group.
    """
    if user_ids is None:
        return b"the users of the store"
    total = 0
    for nth, user_id in enumerate(_every(user_ids, first)):
        # Whatever was given for an id has a text.
        total += int.from_bytes(hashlib.blake2b(repr(user_id).encode(), digest_size=16).digest())
        if nth % _BREATH == 0:
            await anyio.lowlevel.checkpoint()
    return (total % 2**128).to_bytes(16)


def _every(user_ids: UserIds, first: list[str]) -> Iterable[str]:
    if isinstance(user_ids, os.PathLike):
        return _lines(user_ids) if Path(user_ids).is_file() else first
    return user_ids if isinstance(user_ids, Collection) else first


def lines(file: Iterable[bytes]) -> Iterator[str]:
    """Yield the ids of a file with one on each line, without the blanks around them.

    Raises:
        InvalidArgumentError: It has none, or is no text in UTF-8.
    """
    is_empty = True
    for line in file:
        try:
            # Editors on Windows begin a file with a mark.
            user_id = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            msg = "the user ids are not UTF-8 text"
            raise InvalidArgumentError(msg) from None
        if user_id:
            is_empty = False
            yield user_id
    if is_empty:
        msg = "there are no user ids: give one on each line"
        raise InvalidArgumentError(msg)


async def _of_store(store: Store) -> AsyncGenerator[list[str], None]:
    page = list(await store.user_page("", GROUP))
    yield page
    while page:
        page = list(await store.user_page(page[-1], GROUP))
        yield page


async def _of_iterable(user_ids: Iterable[str]) -> AsyncGenerator[list[str], None]:
    iterator = iter(user_ids)
    group: list[str] = []
    try:
        for user_id in iterator:
            group.append(user_id)
            if len(group) == GROUP:
                yield group
                group = []
    except Exception:  # The caller's iterator may raise anything: what it gave before counts. Passed on.
        if group:
            yield group
        raise
    finally:
        if isgenerator(iterator):
            iterator.close()
    yield group


async def _of_async_iterable(user_ids: AsyncIterable[str]) -> AsyncGenerator[list[str], None]:
    iterator: Any = aiter(user_ids)
    group: list[str] = []
    try:
        async for user_id in iterator:
            group.append(user_id)
            if len(group) == GROUP:
                yield group
                group = []
    except Exception:  # As above.
        if group:
            yield group
        raise
    finally:
        if isasyncgen(iterator):
            await iterator.aclose()
    yield group


def _lines(path: os.PathLike[str]) -> Iterator[str]:
    with Path(path).open("rb") as file:
        yield from lines(file)
