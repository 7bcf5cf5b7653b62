"""How much is told of what is wrong: every bad place with its path, up to a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from attrs import define
from cattrs import BaseValidationError, IterableValidationError, IterableValidationNote, transform_error

# How many bad members of arrays and objects are described: a body full of them must not take the memory for each.
_MOST_BAD = 5_000
_MOST_PROBLEMS = 10_000

# What is raised where a value cannot be structured.
BAD_VALUE: Final = (BaseValidationError, ValueError, RecursionError)


@define
class _Budget:
    left: int = _MOST_BAD


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def build_members(
    cls: Any, member: Any, hook: Callable[[Any, Any], Any], places: Iterable[tuple[Any, Any]]
) -> dict[Any, Any]:
    """Structure each member of an array or object, and tell what is wrong with every bad one, up to a bound."""
    built: dict[Any, Any] = {}
    bad: list[Exception] = []
    budget = _budget.get() or _Budget()
    for place, value in places:
        try:
            built[place] = hook(value, member)
        except Exception as error:  # noqa: BLE001 - whatever a hook raises, as cattrs does; raised below.
            error.add_note(IterableValidationNote(f"structuring {cls} @ {place!r}", place, member))
            if budget.left <= 0:
                if isinstance(error, BaseValidationError):
                    # It holds what has been described so far.
                    bad.append(error)
                bad.append(ValueError("so many places are bad that the rest was not looked at"))
                break
            budget.left -= 1
            bad.append(error)
    if bad:
        msg = f"While structuring {cls}"
        raise IterableValidationError(msg, bad, cls)  # pyright: ignore[reportCallIssue] - cattrs takes the class too.
    return built


@contextmanager
def bounded_errors() -> Iterator[None]:
    """Let all that is structured meanwhile describe so many bad places together, and no more."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def problems_of(error: BaseException) -> list[str]:
    """Return one line for every bad place, as `path: what is wrong`."""
    lines = transform_error(error, format_exception=_describe)
    problems = [f"${path}: {text}" for text, _, path in (line.partition(" @ $") for line in lines[:_MOST_PROBLEMS])]
    more = len(lines) - len(problems)
    return [*problems, f"$: and {more} more"] if more else problems


def _describe(error: BaseException, _: Any) -> str:
    return "missing" if isinstance(error, KeyError) else str(error)
