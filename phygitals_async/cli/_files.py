"""Files that commands write."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from phygitals_async.cli._endings import Ending, Exit


@contextmanager
def whole_file(output: str | None) -> Iterator[BinaryIO]:
    """Give a file that takes its name when the block has ended well, or stdout.

    Links are followed, and mode and owner are kept. A device, a pipe, and a file whose owner could not be kept are
    written as they are.

    Raises:
        Ending: The file cannot be written.
    """
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with _opened(output) as to:
            yield to
    except OSError as error:
        msg = f"cannot write {output}: {error.strerror or error}"
        raise Ending(msg, Exit.FAILED) from None


def _opened(output: str) -> AbstractContextManager[BinaryIO]:
    if os.path.abspath(output).startswith(("/dev/fd/", "/dev/std", "/proc/")):
        # The name of a file that is open, with what is in it already.
        return Path(output).open("ab")
    try:
        before = os.stat(output)
    except FileNotFoundError:
        return _beside(output)
    is_mine = sys.platform == "win32" or os.geteuid() in (0, before.st_uid)
    return _beside(output, before) if is_mine and stat.S_ISREG(before.st_mode) else Path(output).open("wb")


@contextmanager
def _beside(output: str, before: os.stat_result | None = None) -> Iterator[BinaryIO]:
    target = Path(os.path.realpath(output))
    # A name of its own: several may write the same file, and nobody who shares the folder must know it beforehand.
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with unfinished.open("xb") as to:
            if before is not None:
                _make_alike(unfinished, before)
            yield to
        os.replace(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _make_alike(file: Path, before: os.stat_result) -> None:
    if sys.platform != "win32":
        os.chown(file, before.st_uid, before.st_gid)
    # After the owner, whose change takes some bits away.
    file.chmod(stat.S_IMODE(before.st_mode))
