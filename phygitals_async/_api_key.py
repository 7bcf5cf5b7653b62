"""The API key, and masking it wherever it could show."""

from __future__ import annotations

from typing import SupportsIndex


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
