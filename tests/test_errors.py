"""The errors: their tree, their texts, and that each survives a pickle with all it carries."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

import phygitals_async
from phygitals_async import (
    ConfigurationError,
    DecodeError,
    InvalidArgumentError,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sent,
    StatusError,
    errors,
)
from phygitals_async.models import Destination, Inventory, Unreadable
from phygitals_transports import MemoryTransport
from support import ROOT, script


def _with_descendants(cls: type[PhygitalsError]) -> Iterator[type[PhygitalsError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _with_descendants(child)


CLASSES: Final = sorted(set(_with_descendants(PhygitalsError)), key=lambda cls: cls.__name__)
_BY_CLASS = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)

# A value for every parameter that an error may take besides its text; a new one needs a line here.
_VALUES: Final[dict[str, Any]] = {
    "status": 418,
    "message": "short and stout",
    "snippet": '{"error": "short and stout"}',
    "retry_after": 1.5,
    "problems": ("$.a: missing", "$.b: missing"),
    "session_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "details": "no such street",
    "sent": Sent.YES,
    "partial": Inventory("user_abc123", (), unreadable=(Unreadable("$.items[0]", ("$.items[0].id: missing",), "{}"),)),
    "owner": "user_abc123",
    "item_ids": ("v1|110586049456|0",),
    "readable": {"session_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
    "suggestion": Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US"),
}


def _full(cls: type[PhygitalsError]) -> PhygitalsError:
    """Make one with a text, every parameter it takes, and everything the engine adds."""
    parameters = inspect.signature(cls).parameters.values()
    given = {p.name: _VALUES[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    error = cls("what happened", **given)
    error.operation, error.attempts = "get_inventory", 3
    # Not what the class says by itself.
    error.sent = Sent.UNKNOWN if cls.sent is Sent.YES else Sent.YES
    if hasattr(error, "arguments"):
        error.arguments = {"user_id": "user_abc123"}
    return error


# The tree


def _drawn_tree() -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """Read the tree off the module's docstring: class to (parent in the tree, other bases)."""
    tree: dict[str, tuple[str | None, tuple[str, ...]]] = {}
    line_of_ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r" {4}((?:[│ ] {3})*)(?:([├└])── )?(\w+)(?: \(([\w, ]+)\))?(?: {2,}\S.*)?$", line)
        if found is None:
            continue
        indent, branch, name, others = found.groups()
        depth = len(indent) // 4 + bool(branch)
        line_of_ancestors[depth:] = [name]
        assert name not in tree
        tree[name] = (line_of_ancestors[depth - 1] if depth else None, tuple(others.split(", ")) if others else ())
    return tree


def _real_tree() -> dict[str, tuple[str | None, tuple[str, ...]]]:
    tree: dict[str, tuple[str | None, tuple[str, ...]]] = {}
    for cls in CLASSES:
        ours = [base.__name__ for base in cls.__bases__ if issubclass(base, PhygitalsError)]
        others = tuple(base.__name__ for base in cls.__bases__ if not issubclass(base, PhygitalsError))
        tree[cls.__name__] = (ours[0] if ours else None, () if cls is PhygitalsError else others)
        assert len(ours) == (cls is not PhygitalsError)
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    """The docstring of the module shows each class under its base, with its built-in bases."""
    drawn = _drawn_tree()
    assert len(drawn) > 15
    assert drawn == _real_tree()


def test_the_drawing_is_in_good_shape() -> None:
    """The last child of each class, and no other, hangs on the corner."""
    lines = [line[4:] for line in (errors.__doc__ or "").splitlines() if re.match(r" {4}[│├└ ]+── ", line)]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        column = line.index("──") - 1
        below = following[column : column + 1]
        rest = "".join(other[column : column + 1] for other in lines[lines.index(line) + 1 :])
        assert line[column] == ("├" if re.match(r"[│├└]", rest) and below in "│├└" else "└"), line


def test_every_error_is_public() -> None:
    """Whatever can be raised can be imported from the package, to be caught."""
    assert {cls.__name__ for cls in CLASSES} <= set(phygitals_async.__all__)
    assert all(getattr(phygitals_async, cls.__name__) is cls for cls in CLASSES)


@_BY_CLASS
def test_each_error_is_documented_and_of_one_root(cls: type[PhygitalsError]) -> None:
    """Every error has a docstring of its own and can be caught as `PhygitalsError`."""
    assert cls.__dict__.get("__doc__")
    assert issubclass(cls, PhygitalsError)
    assert cls.__name__ not in vars(builtins)


@_BY_CLASS
def test_each_error_says_what_to_do(cls: type[PhygitalsError]) -> None:
    """In its docstring, and so in the reference and on the page of errors."""
    assert (inspect.getdoc(cls) or "").count("\n\nWhat to do: ") == 1


def test_the_page_of_errors_says_what_the_classes_say() -> None:
    """`docs/errors.md` has a section for each, as `make errors` writes it."""
    text = (ROOT / "docs" / "errors.md").read_text()
    assert script("build_errors").render() == text
    assert [cls.__name__ for cls in CLASSES if not re.search(rf"^#+ {cls.__name__}$", text, re.MULTILINE)] == []


@pytest.mark.parametrize("builtin", [ValueError, TimeoutError, LookupError, ConnectionError, TypeError, RuntimeError])
def test_which_errors_are_built_in_ones_too(builtin: type[Exception]) -> None:
    """Refused values are `ValueError`s, passed deadlines `TimeoutError`s, and that is all."""
    expected = {
        ValueError: {"ConfigurationError", "InvalidArgumentError"},
        TimeoutError: {"DeadlineExceeded", "PurchasePending"},
    }.get(builtin, set())
    assert {cls.__name__ for cls in CLASSES if issubclass(cls, builtin)} == expected


def test_whether_the_request_was_sent_is_told_by_the_class() -> None:
    """The class says it where the error itself does not know better."""
    told = {cls.__name__: cls().sent for cls in CLASSES}
    never = {name for name, sent in told.items() if sent is Sent.NEVER}
    unknown = {name for name, sent in told.items() if sent is Sent.UNKNOWN}
    assert never == {
        "PhygitalsError",
        "ConfigurationError",
        "InvalidArgumentError",
        "ClientClosed",
        "NotAttempted",
        "NotOwned",
        "ConnectError",
        "CertificateRefused",
        "StoreBusy",
        "StoreCorrupt",
        "StoreError",
        "StoreFull",
        "StoreTooNew",
        "StoreUnavailable",
    }
    assert unknown == {"TransportError", "ConnectionLost", "DeadlineExceeded", "ProtocolError", "OutcomeUnknown"}


# What they carry


@_BY_CLASS
def test_each_error_can_be_made_of_nothing(cls: type[PhygitalsError]) -> None:
    """No argument is required, and what the engine fills in starts out empty."""
    error = cls()
    assert (error.operation, error.attempts) == (None, 0)
    assert "None" not in str(error)


@_BY_CLASS
def test_the_text_carries_the_operation(cls: type[PhygitalsError]) -> None:
    """`str` starts with the method that was called, and holds the text."""
    error = _full(cls)
    assert str(error).startswith("get_inventory: what happened")
    error.operation = None
    assert str(error).startswith("what happened")


@_BY_CLASS
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_error_pickles_with_all_it_carries(cls: type[PhygitalsError], protocol: int) -> None:
    """An error that crosses a process boundary is the same error."""
    error = _full(cls)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes.
    _assert_same(again, error)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert getattr(again, parameter.name) == _VALUES[parameter.name]
    assert again.sent is error.sent


@_BY_CLASS
def test_each_error_copies_with_all_it_carries(cls: type[PhygitalsError]) -> None:
    """`copy` and `deepcopy` keep everything; so do errors made of nothing."""
    for error in (_full(cls), cls()):
        _assert_same(copy.copy(error), error)
        _assert_same(copy.deepcopy(error), error)
        _assert_same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301 - our own bytes.


def _assert_same(again: PhygitalsError, error: PhygitalsError) -> None:
    assert type(again) is type(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert (str(again), repr(again)) == (str(error), repr(error))


@pytest.mark.anyio
@pytest.mark.parametrize("user_id", [(name for name in "ab"), lambda: "a", 5, None], ids=lambda value: str(type(value)))
async def test_an_error_about_an_argument_that_does_not_pickle_pickles(user_id: Any) -> None:
    """Whatever was passed by mistake, the refusal of it can still cross a process boundary."""

    def unreachable(request: Request) -> Response:
        raise AssertionError(request)

    async with PhygitalsClient(MemoryTransport(unreachable), api_key="sandbox-test") as api:
        with pytest.raises(InvalidArgumentError) as caught:
            await api.get_inventory(user_id)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes.
    assert str(again) == str(caught.value)


# Their texts


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "0 (empty body)"),
        ({"status": 503}, "503 (empty body)"),
        ({"status": 503, "snippet": "down"}, "503 down"),
        ({"status": 503, "snippet": "down", "message": "Down"}, "503 Down"),
        ({"text": "own words", "status": 503, "message": "Down"}, "own words"),
    ],
)
def test_a_refusal_says_the_best_it_has(given: dict[str, Any], text: str) -> None:
    """Its own text, else the API's sentence, else the body, else that there is none."""
    assert str(StatusError(**given)) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, ""),
        ({"problems": ["$: x"]}, "$: x"),
        ({"text": "no inventory", "problems": ["$: x"]}, "no inventory; $: x"),
        ({"text": "no inventory", "problems": "abcde"}, "no inventory; a; b; c; d; e"),
        ({"text": "no inventory", "problems": "abcdef"}, "no inventory; a; b; c; d; e; and 1 more"),
        (
            {"text": "no inventory", "problems": "abcdefg", "snippet": "s"},
            "no inventory; a; b; c; d; e; and 2 more; body: s",
        ),
        ({"snippet": "s"}, "body: s"),
    ],
)
def test_a_decode_error_shows_five_problems_and_the_body(given: dict[str, Any], text: str) -> None:
    """The text stays short; `problems` holds all."""
    error = DecodeError(**given)
    assert str(error) == text
    assert error.problems == tuple(given.get("problems", ()))


def test_the_ways_to_catch_a_refused_value() -> None:
    """Code that knows nothing of this library can catch what it raises for a bad value or a passed deadline."""
    with pytest.raises(ValueError, match="no API key"):
        PhygitalsClient()
    for cls, builtin in ((ConfigurationError, ValueError), (errors.DeadlineExceeded, TimeoutError)):
        with pytest.raises(builtin, match="what happened"):
            raise cls("what happened")
