"""The version. The build reads it here: at run time there may be no metadata of a distribution to ask."""

from __future__ import annotations

VERSION = "0.1.0"
