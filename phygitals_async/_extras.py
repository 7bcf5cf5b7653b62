"""Libraries that come with extras."""

from __future__ import annotations

import importlib
from typing import Any

from phygitals_async.errors import ConfigurationError


def load(name: str, extra: str) -> Any:
    """Import a library.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"this needs {name}: pip install 'phygitals-async[{extra}]'"
        raise ConfigurationError(msg) from error
