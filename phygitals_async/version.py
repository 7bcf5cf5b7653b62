"""The version, from the one place that states it: the distribution's metadata."""

from __future__ import annotations

from importlib.metadata import version as distribution_version


def version() -> str:
    """Return the version of the installed distribution."""
    return distribution_version("phygitals-async")
