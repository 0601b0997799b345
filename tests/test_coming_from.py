"""Each test that a page of ``doc/coming_from`` names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "doc" / "coming_from").glob("*.rst"))

NAMED = re.compile(r"``(test_\w+\.py)::(\w+)``")


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) == text.count("``test_"), "a test is not written ``file.py::name``"
    tests = ROOT / "tests"
    known = {name: functions(tests / name) for name, _ in named if (tests / name).exists()}
    missing = [f"{name}::{test}" for name, test in named if test not in known.get(name, ())]
    assert missing == []


def test_every_difference_from_execo_2_has_its_test() -> None:
    text = (ROOT / "doc" / "coming_from" / "execo2.rst").read_text(encoding="utf-8")
    rows = [row for row in text.split("\n   * - ")[1:] if not row.startswith("execo 2.8.2\n")]
    assert len(rows) > 40
    assert [row for row in rows if not NAMED.search(row)] == []
