"""Files that commands write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click


@contextmanager
def whole_file(output: str | None) -> Iterator[BinaryIO]:
    """Give a file that takes its name when the block has ended well, or stdout."""
    if output is None:
        yield sys.stdout.buffer
        return
    unfinished = Path(f"{output}.part")
    try:
        with unfinished.open("wb") as to:
            yield to
        os.replace(unfinished, output)
    except OSError as error:
        raise click.FileError(output, error.strerror or str(error)) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
