"""The version, from the one place that states it: the distribution's metadata."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed distribution."""
    # Imported late: it takes as long to load as half of this package.
    from importlib.metadata import version as distribution_version

    return distribution_version("phygitals-async")
