"""The ids of a refresh, from wherever they come, a group at a time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from inspect import isasyncgen, isgenerator
from pathlib import Path
from typing import Any, Final, TypeAlias

from phygitals_async._bulk.keys import check_keys
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.refresh._store import Store

UserIds: TypeAlias = Iterable[str] | AsyncIterable[str] | os.PathLike[str]

GROUP: Final = 256


def check_ids(user_ids: UserIds | None) -> None:
    """Refuse what cannot be the ids of a refresh.

    Raises:
        InvalidArgumentError: It is a single string, cannot be iterated, or is a file that cannot be read.
    """
    if isinstance(user_ids, os.PathLike):
        try:
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


async def _of_store(store: Store) -> AsyncGenerator[list[str], None]:
    after = ""
    while page := list(await store.user_page(after, GROUP)):
        yield page
        after = page[-1]


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
        yield group
        raise
    finally:
        if isasyncgen(iterator):
            await iterator.aclose()
    yield group


def _lines(path: os.PathLike[str]) -> Iterator[str]:
    # An editor may have put a mark in front.
    with Path(path).open(encoding="utf-8-sig") as file:
        for line in file:
            if user_id := line.rstrip("\r\n"):
                yield user_id
