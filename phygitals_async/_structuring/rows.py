"""The rows of an answer that can be read, where others cannot."""

from __future__ import annotations

import json
import re
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from phygitals_async._structuring.hooks import is_sequence, is_union
from phygitals_async._structuring.problems import BAD_VALUE
from phygitals_async.models.fields import ROWS
from phygitals_async.models.rows import Rows, Unreadable

_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str)
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def readable_part(
    text: str, plain: Any, cls: Any, problems: Sequence[str], structure: Callable[[Any, Any], Any]
) -> Any:
    """Return an answer with only its readable rows, and the others in its `unreadable`.

    It is None where the answer is not one of rows, or something is wrong besides them.

    Args:
        text: The JSON of the answer.
        plain: The values in it.
        cls: What it was to become.
        problems: Why it did not.
        structure: Makes a value of plain ones.
    """
    field = _field_of_rows(cls)
    rows = plain if field == "" else plain.get(field) if isinstance(plain, dict) else None
    if field is None or type(rows) is not list:
        return None
    place = f"$.{field}" if field else "$"
    bad = _by_row(place, problems)
    if not bad:
        return None
    readable = [row for number, row in enumerate(rows) if number not in bad]
    try:
        part = structure({**plain, field: readable} if field else readable, cls)
        raw = list(_texts_of_rows(text, field))
    except BAD_VALUE:
        return None
    return with_unreadable(
        part, [Unreadable(f"{place}[{number}]", tuple(said), raw[number]) for number, said in sorted(bad.items())]
    )


def _field_of_rows(cls: Any) -> str | None:
    """Return the field in which an answer has its rows, an empty text for an array, or None for one without rows."""
    members = [member for member in typing.get_args(cls) if member is not type(None)]
    if is_union(cls) and len(members) == 1:
        (cls,) = members
    if is_sequence(cls):
        return ""
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    return next((a.metadata[ROWS] for a in fields if ROWS in a.metadata), None)


def _by_row(place: str, problems: Sequence[str]) -> dict[int, list[str]]:
    """Return the problems of each row that has some. Problems of another place are left out: they stay."""
    bad: dict[int, list[str]] = defaultdict(list)
    for problem in problems:
        if found := re.match(re.escape(place) + r"\[(\d+)\]", problem):
            bad[int(found[1])].append(problem)
    return bad


def with_unreadable(part: Any, unreadable: Sequence[Unreadable]) -> Any:
    """Return an answer that tells what is missing from it, or None if it has no way to tell."""
    if isinstance(part, tuple | list):
        return Rows(part, unreadable)
    # A class of somebody's own that cannot tell what is missing must not pass for a whole answer.
    if attrs.has(type(part)) and "unreadable" in attrs.fields_dict(type(part)):
        return attrs.evolve(part, unreadable=tuple(unreadable))
    return None


def _texts_of_rows(text: str, field: str) -> Iterator[str]:
    """Yield the JSON of each row, as it was written."""
    start = _skip_space(text, 0)
    if field:
        # Of a repeated field the last counts.
        start = [place for name, place in _fields(text, start) if name == field][-1]
    place = _skip_space(text, start + 1)
    while text[place] != "]":
        _, end = _DECODER.raw_decode(text, place)
        yield text[place:end]
        place = _next_member(text, end)


def _fields(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Yield the name of each field of the object at `start`, and where its value begins."""
    place = _skip_space(text, start + 1)
    while text[place] != "}":
        name, end = _DECODER.raw_decode(text, place)
        value = _skip_space(text, text.index(":", end) + 1)
        yield name, value
        _, end = _DECODER.raw_decode(text, value)
        place = _next_member(text, end)


def _next_member(text: str, end: int) -> int:
    """Return where the next member of an array or object begins, or where it ends."""
    place = _skip_space(text, end)
    return _skip_space(text, place + 1) if text[place] == "," else place


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return start if found is None else found.end()
