"""Packages whose names are loaded when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def late(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package, to be hidden from type checkers.

    Those would take every misspelt name for one that it has.

    Args:
        package: Its name.
        homes: The module of each public name, within the package.
    """

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
            return vars(sys.modules[package]).setdefault(name, value)
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)

    return load, lambda: sorted(homes)
