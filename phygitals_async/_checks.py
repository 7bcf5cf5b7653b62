"""What a caller's numbers, and anybody's texts, may be."""

from __future__ import annotations

import sys
from typing import Final

from phygitals_async.errors import ConfigurationError

_LARGEST: Final = sys.float_info.max


def check_seconds(name: str, value: float) -> float:
    """Return `value` if it is a positive, finite number of seconds.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value <= _LARGEST):
        msg = f"{name} must be a positive, finite number of seconds"
        raise ConfigurationError(msg)
    return value


def check_count(name: str, value: int) -> int:
    """Return `value` if it is a whole number of at least 1.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} must be a whole number of at least 1"
        raise ConfigurationError(msg)
    return value


def check_rate(name: str, value: float) -> float:
    """Return `value` if it is a positive, finite number of requests per second.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value <= _LARGEST):
        msg = f"{name} must be a positive, finite number of requests per second"
        raise ConfigurationError(msg)
    return value


def check_patience(value: float) -> float:
    """Return `value` if it is a finite number of seconds, or 0.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= _LARGEST):
        msg = "patience must be a finite number of seconds, or 0"
        raise ConfigurationError(msg)
    return value


def has_surrogate(text: str) -> bool:
    """Whether a text holds an unpaired surrogate, half a character, which no encoding can carry."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
