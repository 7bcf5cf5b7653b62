"""What a declaration of an endpoint says."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import Factory, field, frozen

from phygitals_async import errors
from phygitals_async._api.arguments import ID, Argument

T = TypeVar("T")


class Effect(enum.Enum):
    """What a call does besides answering.

    Attributes:
        is_irreversible: Whether the call must not be made twice.
    """

    is_irreversible: bool

    READS = "reads"
    MOVES_MONEY = "moves money"
    MOVES_GOODS = "moves goods"

    def __init__(self, what: str) -> None:
        self.is_irreversible = what != "reads"


@frozen(eq=False)
class Refusal:
    """One way the API says no.

    Attributes:
        status: The HTTP status, or None for any.
        text: What the body says; `{...}` at its end stands for anything.
        error: The class raised for it.
        key: The key of the body under which it is said.
        null: A key that must be there, and be null.
        by_status: Whether the status alone decides, whatever the body says.
        details: Reads further attributes of the error out of the body and the arguments of the call.
        about: The argument that it is about, which the error's text names.
    """

    status: int | None
    text: str
    error: type[errors.StatusError]
    key: str = "error"
    null: str | None = None
    by_status: bool = False
    details: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None
    about: str = ""

    def matches(self, status: int, body: Mapping[str, Any]) -> bool:
        """Whether an answer is this refusal."""
        if self.by_status and self.status == status:
            return True
        said = body.get(self.key)
        fixed, template, _ = self.text.partition("{")
        return (
            self.status in (status, None)
            and isinstance(said, str)
            and (self.null is None or body.get(self.null, "absent") is None)
            and (said.startswith(fixed) if template else said == fixed)
        )


@frozen(kw_only=True, eq=False)
class Operation(Generic[T]):
    """One endpoint.

    Attributes:
        name: The client method, as errors report it.
        method: The HTTP method.
        path: Relative to the path prefix; `{name}` stands for the argument of that name, an id.
        query: Query parameter to argument. A collection repeats the parameter.
        body: Field of the JSON body to argument.
        effect: What the call does. One that moves money or goods is sent at most once.
        answer: What a 2xx body is structured into.
        read: Takes the result out of the answer, or raises the refusal that hides in it.
        echoes: The argument that the answer repeats under the same name, which shows that it answers this call.
        salvages: What to salvage of an answer that is not what it should be: by the answer's own names, what reads a
            value that can be used, and gives None for any other.
        refusals: The refusals it knows; other answers get the class of their status.
        hint: What to look at where the API does not know what it was asked about.
        segments: The path in pieces, each with the name of the argument that follows it, or with an empty one.
    """

    name: str
    method: str
    path: str
    query: Mapping[str, Argument] = field(factory=dict)
    body: Mapping[str, Argument] = field(factory=dict)
    effect: Effect = Effect.READS
    answer: Any
    read: Callable[[Any], T] = Factory(lambda: _as_it_is)
    echoes: str = ""
    salvages: Mapping[str, Callable[[object], Any]] = field(factory=dict)
    refusals: Sequence[Refusal] = ()
    hint: str = ""
    segments: Sequence[tuple[str, str]] = field(init=False)
    _arguments: Mapping[str, Argument] = field(init=False)

    def __attrs_post_init__(self) -> None:
        parts = re.split(r"{(\w+)}", self.path)
        names = parts[1::2]
        of_all = (*(Argument(name, ID) for name in names), *self.query.values(), *self.body.values())
        object.__setattr__(self, "segments", tuple(zip(parts[::2], [*names, ""], strict=True)))
        object.__setattr__(self, "_arguments", {argument.name: argument for argument in of_all})

    @property
    def path_arguments(self) -> tuple[str, ...]:
        """The names of the arguments in the path."""
        return tuple(name for _, name in self.segments if name)

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are sent.

        Raises:
            InvalidArgumentError: One of them cannot be.
        """
        checked = {}
        for name, argument in self._arguments.items():
            value = arguments[name]
            checked[name] = None if value is None and argument.optional else argument.kind.check(name, value)
        return checked


def _as_it_is(answer: T) -> T:
    return answer
