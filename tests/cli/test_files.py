"""What `--output` does to what is there already."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from phygitals_async.cli._endings import Ending, Exit
from phygitals_async.cli._files import whole_file


def write(output: Path | str, content: bytes = b"new") -> None:
    """Write a file as a command does."""
    with whole_file(str(output)) as to:
        to.write(content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It has the mode of any new file, and nothing else is left."""
    usual = tmp_path / "usual"
    usual.touch()
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode == usual.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "usual"]


def test_mode_and_owner_are_kept(tmp_path: Path) -> None:
    """Nobody gets to read what only its owner could."""
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o600)
    write(file)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        write(file)
        assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """It stays a link, and what it leads to is new, also where that was not there."""
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    link.symlink_to("elsewhere/file")
    for content in (b"first", b"second"):
        write(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    """A named pipe is one afterwards, and its reader has it all."""
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join()
    assert read == [b"new"]
    assert pipe.is_fifo()


def test_a_device_that_is_full(tmp_path: Path) -> None:
    """One line, and it is a device afterwards. A copy of it, lest the machine's is lost."""
    full = tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o666, Path("/dev/full").stat().st_rdev)
        full.open("wb").close()
    except OSError:
        pytest.skip("not run: only root makes devices")
    with pytest.raises(Ending, match=f"cannot write {full}: No space left on device") as ended:
        write(full)
    assert ended.value.code is Exit.FAILED
    assert full.is_char_device()


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """And no part of a new one."""
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(ValueError, match="hex"), whole_file(str(file)) as to:
        to.write(bytes.fromhex("00 no hex"))
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["/dev/fd", "/proc/self/fd"])
def test_the_name_of_a_file_that_is_open(tmp_path: Path, place: str) -> None:
    """It stays the same file, and keeps what others wrote to it, as where stdout goes to a log."""
    if not Path(place).is_dir():
        pytest.skip(f"not run: there is no {place}")
    file = tmp_path / "log"
    file.write_bytes(b"before, ")
    with file.open("ab") as out:
        write(f"{place}/{out.fileno()}")
        assert os.path.samestat(os.fstat(out.fileno()), file.stat())
    assert file.read_bytes() == b"before, new"
