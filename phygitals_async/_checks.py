"""What a caller's numbers, and anybody's texts, may be."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterable, Iterable
from typing import Final

from phygitals_async.errors import ConfigurationError

_LARGEST: Final = sys.float_info.max
# What is larger takes more digits than anybody reads.
_LONGEST: Final = 10**15


def shown(value: object) -> str:
    """Return a refused value for an error text; by its type alone where it is long, or could be a key."""
    if isinstance(value, str):
        # The text itself of a subclass, which may hide it.
        text = str.__str__(value)
        return repr(text) if re.fullmatch(r"[A-Za-z ]{0,16}|[-+0-9.,]{1,16} ?[A-Za-z]{0,8}", text) else "a text"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _LONGEST):
        return repr(value)
    if isinstance(value, int):
        return "so large a number"
    return "None" if value is None else f"a {type(value).__name__}"


def check_seconds(name: str, value: float) -> float:
    """Return `value` if it is a positive, finite number of seconds.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value <= _LARGEST):
        msg = f"{name} must be a positive, finite number of seconds, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def check_count(name: str, value: int) -> int:
    """Return `value` if it is a whole number of at least 1.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} must be a whole number of at least 1, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def check_rate(name: str, value: float) -> float:
    """Return `value` if it is a positive, finite number of requests per second.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value <= _LARGEST):
        msg = f"{name} must be a positive, finite number of requests per second, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def check_patience(value: float) -> float:
    """Return `value` if it is a finite number of seconds, or 0.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= _LARGEST):
        msg = f"patience must be a finite number of seconds, or 0, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def are_many(value: object) -> bool:
    """Whether a value can be iterated for keys or ids, and is no single text."""
    return isinstance(value, Iterable | AsyncIterable) and not isinstance(value, str | bytes)


def has_surrogate(text: str) -> bool:
    """Whether a text holds an unpaired surrogate, half a character, which no encoding can carry."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
