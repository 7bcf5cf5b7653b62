"""What tests need beside Python: where it is missing, one line says which were not run, and how to have it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from needs import NEEDS
from support import ROOT


def _run_without_a_browser(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a browser where no program is to be found."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "browser")]
    outside = {name: value for name, value in os.environ.items() if name not in {need.variable for need in NEEDS}}
    inside = {**outside, **environment, "PATH": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=inside, capture_output=True, text=True, check=False)


def test_one_line_says_what_was_not_run_and_how_to_have_it(tmp_path: Path) -> None:
    """However many tests and modules need a browser."""
    done = _run_without_a_browser(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SKIPPED"))
    assert re.fullmatch(r"SKIPPED \[\d\d\] tests/needs.py:\d+: not run: the tests in a browser: `apt install .*", line)
    assert re.search(r"^\d\d skipped in ", done.stdout, re.MULTILINE)


def test_where_it_must_be_there_its_absence_is_a_failure(tmp_path: Path) -> None:
    """As in the CI."""
    done = _run_without_a_browser(tmp_path, PHYGITALS_TESTS_NEED_BROWSER="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SKIPPED" not in done.stdout
    assert re.search(r"^(E +Failed: )?missing for the tests in a browser: `apt install ", done.stdout, re.MULTILINE)


def test_the_ci_must_have_everything() -> None:
    """Each variable is set there: what cannot be run fails."""
    told = (ROOT / ".ci" / "run").read_text()
    assert [need.variable for need in NEEDS if f"{need.variable}=1" not in told] == []
