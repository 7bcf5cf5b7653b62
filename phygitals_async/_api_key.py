"""The API key, and masking it wherever it could show."""

from __future__ import annotations

import re
from html import unescape
from typing import Final, SupportsIndex
from urllib.parse import unquote

# What a JSON string may write in the place of a character.
_JSON_ESCAPE: Final = r"\\(?:u([0-9A-Fa-f]{4})|(.))"
# How deep a text may stand inside another, such as JSON in a string of JSON.
_NESTED: Final = 3


class ApiKey(str):
    """A key whose repr and pickle hide it, so that no dump of locals or of headers can show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> ApiKey:
        # What shortens long strings must not lay a part of it open.
        return ApiKey(super().__getitem__(index))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, ("***",)

    def __deepcopy__(self, _: object) -> ApiKey:
        # A copy of a request within this process is still to be sendable.
        return self


def conceal(key: object) -> object:
    """Return `key` so that no dump of local variables shows it; what is no text, and so no key, by its type alone."""
    return ApiKey(str.__str__(key)) if isinstance(key, str) else None if key is None else type(key)


def shows_key(key: ApiKey, text: str, *, nested: int = _NESTED) -> bool:
    """Whether the key can be read off a text, also where JSON, HTML or a URL, or one in another, write it otherwise."""
    if key in text:
        return True
    if not nested or not re.search(r"[\\&%]", text):
        # Nothing is written otherwise; bulk runs judge many a plain refusal.
        return False
    forms = (_from_json(text), unescape(text), unquote(text))
    return any(shows_key(key, form, nested=nested - 1) for form in forms if form != text)


def may_show_key(key: ApiKey, body: bytes) -> bool:
    """Whether `shows_key` might be true of a body; it may say so for nothing, for finding out takes its time."""
    return key.encode() in body or b"\\" in body or b"&" in body or b"%" in body


def mask_key(key: ApiKey, text: str) -> str:
    """Return a text in which the key cannot be read."""
    masked = text.replace(key, "***")
    return "(not shown: it repeats the API key)" if shows_key(key, masked) else masked


def _from_json(text: str) -> str:
    return re.sub(_JSON_ESCAPE, lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
