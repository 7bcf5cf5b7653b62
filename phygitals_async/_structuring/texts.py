"""Texts that are whole: one with half a character, an unpaired surrogate, can be neither shown, stored nor sent."""

from __future__ import annotations

from typing import Any

from phygitals_async._checks import has_surrogate
from phygitals_async._structuring.scalars import structure_any, structure_str


def check_text(text: str) -> None:
    """Refuse a text that holds half a character.

    Raises:
        ValueError: It does.
    """
    if has_surrogate(text):
        msg = "holds half a character, an unpaired surrogate"
        raise ValueError(msg)


def structure_text(value: Any, cls: Any) -> Any:
    """Take a string that is whole."""
    text = structure_str(value, cls)
    check_text(text)
    return text


def structure_anything(value: Any, cls: Any) -> Any:
    """Keep any JSON value whose strings are whole."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                check_text(text)
            case list() as members:
                pending += members
            case dict() as fields:
                pending += [*fields, *fields.values()]
    return structure_any(value, cls)
