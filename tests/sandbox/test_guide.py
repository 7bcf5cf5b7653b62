"""docs/sandbox.md names the tests that prove each rule."""

from __future__ import annotations

import ast
import re
from typing import Final

from support import ROOT, TESTS

GUIDE: Final = ROOT / "docs" / "sandbox.md"


def test_the_guide_names_tests_that_exist() -> None:
    """Every test that `docs/sandbox.md` names is a test of this project, and every rule has at least one."""
    defined = {
        node.name
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    text = GUIDE.read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= defined, sorted(named - defined)
    rows = {row[0]: row[1] for row in re.findall(r"^\| (S\d+) \|.*\| ([^|]*) \|$", text, re.MULTILINE)}
    assert list(rows) == [f"S{number}" for number in range(1, 25)]
    assert rows.pop("S24").startswith("None documented")
    for rule, cell in rows.items():
        assert re.findall(rf"`(test_{rule.lower()}_\w+)`", cell), rule


def test_the_guide_leaves_no_test_of_a_rule_out() -> None:
    """Every test that carries a rule's number, or is about the life cycle, is named in the guide."""
    trees = [ast.parse(file.read_text()) for file in (TESTS / "sandbox").glob("test_rules*.py")]
    nodes = [node for tree in trees for node in tree.body]
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    about = [name for name in names if re.match(r"test_(s\d+|life_cycle|a_wipe)_", name)]
    assert len(about) > 30
    named = set(re.findall(r"`(test_\w+)`", GUIDE.read_text()))
    assert set(about) <= named, sorted(set(about) - named)
