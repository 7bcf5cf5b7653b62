"""The code in the documents runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*sorted(ROOT.glob("*.md")), *DOCUMENTS[1:], ROOT / "benchmarks" / "README.md"]
BLOCKS = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_runs_on_its_own(block: str) -> None:
    """Every block of Python in the documents is a program that ends without an error or a warning."""
    command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_program_of_the_readme_comes_early_and_prints() -> None:
    """A working program stands in the first 30 lines, needs no key, and shows a card."""
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    (program,) = re.findall(r"```python\n(.*?)```", head, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "Juan Soto RC Auto /25: sells back for USD 8.50\n", done.stderr


def test_both_commands_stand_on_the_first_screen() -> None:
    """`make demo` and `make test` are found without scrolling."""
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make demo" in head
    assert "make test" in head


@pytest.mark.parametrize("document", LINKING, ids=lambda document: document.name)
def test_each_link_leads_somewhere(document: Path) -> None:
    """A link to a file names one that is there; any other is a full address."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        path = target.partition("#")[0]
        assert target.startswith("https://") or (document.parent / path).exists(), target
