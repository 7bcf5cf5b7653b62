"""Numbers written as text: msgspec makes a Decimal of more texts than JSON's own number syntax allows."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import attrs

from phygitals_async._structuring.scalars import JSON_NUMBER

# How a text begins of which a Decimal could be made, and that is no number as JSON writes one.
_ODD: Final = rf'"(?!{JSON_NUMBER}")(?=[\s+\-._0-9\\\x80-\xff]|(?i:s?nan|inf))'
# A letter of a field's name that is spelt as an escape. No serializer does that.
_DISGUISED: Final = re.compile(rb"\\u00(?:[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff])")


def finder_of_odd_numbers(cls: Any) -> Callable[[bytes], bool]:
    """Return what tells whether a body may hold, where `cls` has a Decimal, a text that is no JSON number.

    It may say so for nothing, of a body that the explaining path then takes.
    """
    names = _decimals_below(cls, "", set())
    if not names:
        return lambda _: False
    fields = "|".join(sorted(map(re.escape, names)))
    search = re.compile((_ODD if "" in names else rf'"(?:{fields})"\s*:\s*{_ODD}').encode()).search

    def finds(data: bytes) -> bool:
        return search(data) is not None or (b"\\u00" in data and _DISGUISED.search(data) is not None)

    return finds


def _decimals_below(cls: Any, name: str, seen: set[Any]) -> set[str]:
    """Return the names of the fields that hold a Decimal, with an empty one for a Decimal that no name precedes."""
    if cls is Decimal:
        return {name}
    if attrs.has(cls):
        if cls in seen:
            return set()
        seen.add(cls)
        return {found for a in attrs.fields(cls) for found in _decimals_below(a.type, a.name, seen)}
    # Of the members of a type, only those of a union stand in its place.
    inner = name if type(None) in typing.get_args(cls) else ""
    alias = getattr(cls, "__supertype__", getattr(cls, "__value__", None))
    members = [*typing.get_args(cls), *([] if alias is None else [alias])]
    return {found for member in members for found in _decimals_below(member, inner, seen)}
