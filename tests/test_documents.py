"""The code in the documents runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import phygitals_async
import phygitals_transports
from support import ROOT


def _name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*sorted(ROOT.glob("*.md")), *DOCUMENTS[1:], ROOT / "benchmarks" / "README.md"]
BLOCKS = [
    pytest.param(block, id=f"{_name(document)}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_runs_on_its_own(block: str) -> None:
    """Every block of Python in the documents is a program that ends without an error or a warning."""
    command = [sys.executable, "-W", "error", "-c", block]
    # A recipe needs Airflow, which has more than a hundred dependencies.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT / "tests" / "stand_ins")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_test_of_an_application_passes(tmp_path: Path) -> None:
    """Beside the program that it tests, with no fixture but the library's."""
    program, *more = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "web.md").read_text(), re.DOTALL)
    (block,) = (block for block in more if "TestClient" in block)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    (tmp_path / "test_shop.py").write_text(f"{program}\n{block}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.search(r"^1 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


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


@pytest.mark.parametrize("document", LINKING, ids=_name)
def test_each_link_leads_somewhere(document: Path) -> None:
    """A link to a file names one that is there, and a heading of it; any other is a full address."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not heading or heading in _headings(file), target


def _headings(document: Path) -> set[str]:
    """Return what a link can name in a document, as GitHub and the site spell it."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_each_section_of_the_api_sheet_that_a_docstring_cites_is_there() -> None:
    """By its number, so that it can be found."""
    packages = [Path(package.__file__ or "").parent for package in (phygitals_async, phygitals_transports)]
    cited = {
        number
        for path in (path for package in packages for path in package.rglob("*.py"))
        for numbers in re.findall(r"API sheet, (?:sections? )?([\d., ]*\d)", path.read_text())
        for number in numbers.split(", ")
    }
    assert {"1", "2.7", "4"} <= cited
    sections = set(re.findall(r"^#+ ([\d.]*\d)\.? ", (ROOT / "docs" / "api-sheet.md").read_text(), re.MULTILINE))
    assert cited - sections == set()


def test_the_picture_of_the_demo_is_of_no_one_machine() -> None:
    """Its last lines say what to type, wherever it was taken."""
    shown = (ROOT / "docs" / "pictures" / "demo.svg").read_text().replace("&#160;", " ")
    assert re.findall(r">  (\S+) (changes|sandbox) ", shown) == [
        (".venv/bin/phygitals", "changes"),
        (".venv/bin/phygitals", "sandbox"),
    ]
