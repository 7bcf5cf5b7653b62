"""`export`: what is written besides the rows is tested with `refresh`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from cli_support import Server
from phygitals_async.cli._endings import Exit
from phygitals_async.cli._export import FORMATS
from phygitals_async.refresh import ExportFormat


def test_the_formats() -> None:
    """The command has those of the library."""
    assert get_args(ExportFormat) == FORMATS


@pytest.mark.parametrize(("options", "cell"), [([], ",'=1+1,"), (["--raw"], ",=1+1,")])
def test_formulas(server: Server, tmp_path: Path, options: list[str], cell: str) -> None:
    """A name is no formula, unless it is to be written as it is."""
    server.item("ann", name="=1+1")
    (tmp_path / "ids.txt").write_text("ann\n")
    store = str(tmp_path / "users.db")
    server.run("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", store)
    result = server.run("export", "--store", store, "--format", "csv", *options)
    assert result.exit_code == Exit.DONE
    assert cell in result.stdout
    refused = server.run("export", "--store", store, "--raw")
    assert refused.exit_code == Exit.USAGE
    assert "--raw is for --format csv" in refused.stderr
