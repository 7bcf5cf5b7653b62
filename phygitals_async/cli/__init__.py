"""The command line `phygitals`: `pip install 'phygitals-async[cli]'` installs what it needs.

What each command does is in `phygitals COMMAND --help` and in `docs/cli.md` of the source.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status: see `docs/cli.md`.

    Args:
        arguments: What stands after `phygitals`; by default the arguments of this process.
    """
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        sys.stderr.write(f"phygitals: the command line needs {needed}: pip install 'phygitals-async[cli]'\n")
        sys.exit(2)
    # One that is closed is None, and the next file to be opened would get its number.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A card's name may have letters that an old terminal has not: better odd than a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # Both are real files.
    from phygitals_async.cli._app import app

    try:
        app.main(arguments, "phygitals")
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up(stream)


def _give_up(stream: TextIO) -> None:
    """Drop what cannot be written any more: Python would try once again at its end, and complain."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
