"""The rows of an answer, and those of them that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar

from attrs import frozen

T_co = TypeVar("T_co", covariant=True)


@frozen
class Unreadable:
    """A row of an answer that is not what the API documents, as it came.

    Attributes:
        path: Where it was in the answer, such as `$.items[3]`.
        problems: One line for every bad place in it, as in `DecodeError.problems`.
        raw: Its JSON, as it was written; the API key is masked in it.
    """

    path: str
    problems: tuple[str, ...]
    raw: str


class Rows(tuple[T_co, ...]):
    """The rows of an answer that is an array: a tuple like any other, which also tells what is missing from it.

    It equals, and hashes as, the plain tuple of its rows. A slice of it is a plain tuple.
    """

    _unreadable: tuple[Unreadable, ...]

    def __new__(cls, rows: Iterable[T_co] = (), unreadable: Iterable[Unreadable] = ()) -> Self:
        """Make a tuple of `rows`, which tells of those that are `unreadable`."""
        made = super().__new__(cls, rows)
        made._unreadable = tuple(unreadable)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (tuple(self), self._unreadable)

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Rows that cannot be read and so are missing from this tuple, where the client keeps such answers."""
        return self._unreadable
