"""What a call's arguments may be, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from phygitals_async._checks import are_many, has_surrogate, shown
from phygitals_async.errors import InvalidArgumentError
from phygitals_async.models import Destination

_MOST_RECENT_PULLS: Final = 100
# Beyond this, a JSON number is not exact in every language.
_LARGEST_EXACT: Final = 2**53 - 1


@frozen(eq=False)
class Kind:
    """A kind of argument.

    Attributes:
        check: Given the argument's name and value, returns what to send or raises `InvalidArgumentError`.
        schema: The JSON Schema of what is sent.
    """

    check: Callable[[str, Any], Any]
    schema: Mapping[str, Any]


@frozen(eq=False)
class Argument:
    """A named argument of an operation, of some kind; an optional one may be None and is then not sent."""

    name: str
    kind: Kind
    optional: bool = False


def check_id(name: str, value: object) -> str:
    """Return `value` if it can name something, in a URL path too.

    Raises:
        InvalidArgumentError: It is not a string, is empty, `.` or `..`, or holds an unpaired surrogate.
    """
    if not isinstance(value, str):
        msg = f"{name} must be a string, not {type(value).__name__}"
    elif not value:
        msg = f"{name} must not be empty"
    elif value in (".", ".."):
        msg = f"{name} must not be '.' or '..': servers and proxies resolve those away"
    elif has_surrogate(value):
        msg = f"{name} holds an unpaired surrogate, which no encoding can carry"
    else:
        # The text itself of a subclass, such as a member of an enum.
        return str.__str__(value)
    raise InvalidArgumentError(msg)


def check_user_ids(value: object) -> None:
    """Refuse what cannot be the user ids of a bulk run, before the run refuses it as it would any keys.

    Raises:
        InvalidArgumentError: It is a single string, or cannot be iterated.
    """
    if not are_many(value):
        given = f"a single {type(value).__name__}"
        msg = f"user_ids must be an iterable of user ids, not {given}; for one user there is get_inventory(user_id)"
        raise InvalidArgumentError(msg)


def _check_ids(name: str, value: object) -> list[str]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        msg = f"{name} must be a collection of ids, not a single {type(value).__name__}"
        raise InvalidArgumentError(msg)
    ids = [check_id(f"each of {name}", item) for item in value]
    if not ids:
        msg = f"{name} must not be empty"
        raise InvalidArgumentError(msg)
    return ids


def _check_whole(name: str, value: object, *, most: int = _LARGEST_EXACT) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} must be a whole number, not {type(value).__name__}"
    elif not 1 <= value <= most:
        msg = f"{name} must be at least 1" if value < 1 and most == _LARGEST_EXACT else f"{name} must be 1 to {most}"
    else:
        return int(value)
    raise InvalidArgumentError(msg)


def _check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        msg = f"{name} must be a bool, not {type(value).__name__}"
        raise InvalidArgumentError(msg)
    return value


def _check_destination(name: str, value: object) -> Destination:
    if not isinstance(value, Destination):
        msg = f"{name} must be a Destination, not {type(value).__name__}"
        raise InvalidArgumentError(msg)
    for part, text in value.parts():
        if not isinstance(text, str) or has_surrogate(text):
            msg = f"{name}.{part} must be text that can be encoded"
            raise InvalidArgumentError(msg)
    # The API's own rule (API sheet, 2.9): it refuses any other length.
    if len(value.country) != 2:
        msg = f"{name}.country must be a code of two letters, such as US, not {shown(value.country)}"
        raise InvalidArgumentError(msg)
    return Destination(**{part: str.__str__(text) for part, text in value.parts()})


ID: Final = Kind(check_id, {"type": "string", "minLength": 1})
IDS: Final = Kind(_check_ids, {"type": "array", "items": ID.schema, "minItems": 1})
AMOUNT: Final = Kind(_check_whole, {"type": "integer", "minimum": 1})
PULLS_LIMIT: Final = Kind(
    lambda name, value: _check_whole(name, value, most=_MOST_RECENT_PULLS),
    # Without the most: the server lowers what is above it (API sheet, 2.3).
    AMOUNT.schema,
)
FLAG: Final = Kind(_check_flag, {"type": "boolean"})
DESTINATION: Final = Kind(_check_destination, {"$ref": "#/components/schemas/Destination"})
