"""The sync client offers what the async one does: it is written by a script, and held against it here."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import phygitals_async
from phygitals_async import sync
from support import script

BY_HAND = {"aclose": "close"}


def _public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


def test_the_file_is_what_the_script_writes() -> None:
    """Whoever changes the async client runs `python scripts/build_sync.py`."""
    assert Path(sync.__file__).read_text() == script("build_sync").render()


def test_each_method_of_the_async_client_is_there_and_no_other() -> None:
    """Under its own name; `aclose` is `close`."""
    names = {BY_HAND.get(name, name) for name in _public(phygitals_async.PhygitalsClient)}
    assert set(_public(sync.PhygitalsClient)) == names


@pytest.mark.parametrize("name", sorted([*_public(phygitals_async.PhygitalsClient), "__init__"]))
def test_each_signature_is_the_same_without_the_loop(name: str) -> None:
    """Parameters, kinds and defaults are the async client's; no type is left that only an event loop can serve."""
    there = getattr(phygitals_async.PhygitalsClient, name)
    here = getattr(sync.PhygitalsClient, BY_HAND.get(name, name))
    assert not inspect.iscoroutinefunction(here)
    shapes = [
        [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()] for method in (there, here)
    ]
    assert shapes[0] == shapes[1]
    if name == "call_with_response":
        return  # What it is given returns here what is awaited there.
    asked, given = typing.get_type_hints(there), typing.get_type_hints(here)
    assert asked.keys() == given.keys()
    for parameter in asked:
        if asked[parameter] != given[parameter]:
            assert _without_the_loop(asked[parameter]) == given[parameter]


def _without_the_loop(hint: Any) -> Any:
    counterparts: dict[Any, Any] = {AsyncIterator: Iterator, phygitals_async.FanOut: sync.FanOut}
    if (origin := typing.get_origin(hint)) in counterparts:
        return counterparts[origin][typing.get_args(hint)]
    (kept,) = [one for one in typing.get_args(hint) if typing.get_origin(one) is not AsyncIterable]
    return kept


@pytest.mark.parametrize("name", sorted(_public(sync.PhygitalsClient)))
def test_each_method_is_documented_for_a_program_without_a_loop(name: str) -> None:
    """No docstring tells to await."""
    text = getattr(sync.PhygitalsClient, name).__doc__
    assert text
    assert not re.search(r"\bawait\b|\basync\b|aclose", text)
