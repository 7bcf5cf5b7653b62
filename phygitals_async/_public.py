"""What every public method does beside its work: errors with short tracebacks, and a word on a mistaken keyword."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from phygitals_async._api_key import conceal
from phygitals_async.errors import PhygitalsError

C = TypeVar("C")

# What other libraries call it, and what is meant.
_MISTAKEN: Final = {"timeout": "the seconds that a call may take in all are its deadline: deadline=30"}


def public(cls: type[C]) -> type[C]:
    """Let the errors of all public methods of a class come without the frames inside, and explain `timeout=`.

    The frames inside tell a user nothing, and error reporters show their local variables. Bugs keep theirs.
    """
    for name, method in tuple(vars(cls).items()):
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(cls, name, _awaited(method))
        elif inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, _called(method))
    return cls


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except PhygitalsError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error.
        except TypeError:
            _explain(method.__qualname__, kwargs)
            raise

    return call


def _called(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if method.__name__ == "__init__":
            # Error reporters show the locals of every frame, and the key may have been given for something else.
            args = tuple(conceal(value) if isinstance(value, str) else value for value in args)
            kwargs |= {k: conceal(v) for k, v in kwargs.items() if k == "api_key" or isinstance(v, str)}
        try:
            return method(*args, **kwargs)
        except PhygitalsError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error.
        except TypeError:
            _explain(method.__qualname__.removesuffix(".__init__"), kwargs)
            raise

    return call


def _explain(name: str, keywords: dict[str, Any]) -> None:
    for mistaken in _MISTAKEN.keys() & keywords.keys():
        msg = f"{name}() takes no {mistaken}: {_MISTAKEN[mistaken]}"
        raise TypeError(msg) from None
