"""Engines that are not installed with the package."""

from __future__ import annotations

from importlib.util import find_spec

from phygitals_async import ConfigurationError


def is_installed(module: str) -> bool:
    """Whether there is such a module."""
    return find_spec(module) is not None


def require(extra: str, *modules: str) -> None:
    """See that what an extra installs is there.

    Raises:
        ConfigurationError: It is not.
    """
    if missing := [module for module in modules if not is_installed(module)]:
        msg = f"{' and '.join(missing)} not found: pip install 'phygitals-async[{extra}]'"
        raise ConfigurationError(msg)
