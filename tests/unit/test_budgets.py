"""Budgets of suites, and the figures that torture leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.budgets import Budgets, parse, suite_of
from tests.figures import BEGIN, END, Figures

if TYPE_CHECKING:
    from pathlib import Path


def test_a_suite_is_a_folder_of_tests() -> None:
    """Its name is that of the folder right below tests/."""
    assert suite_of("tests/unit/test_a.py::test_b[c::d]") == "unit"


@pytest.mark.parametrize("word", ["unit", "unit=", "=60", "unit=soon", "unit=-1"])
def test_a_budget_that_makes_no_sense_is_refused(word: str) -> None:
    """Else a typing error would switch the budget off."""
    with pytest.raises(pytest.UsageError, match=f"{word!r}"):
        parse([word])


def test_a_suite_within_its_budget_passes() -> None:
    """And without any budgets, nothing is asked."""
    budgets = Budgets({"unit": 60.0})
    budgets.taken["unit"] = 59

    assert budgets.exceeded() == []
    assert Budgets({}).exceeded() == []


def test_a_suite_that_took_too_long_or_has_no_budget_fails() -> None:
    """Each with a line that says what to do."""
    budgets = Budgets({"unit": 60.0})
    budgets.taken["unit"], budgets.taken["storm"] = 61, 1

    assert budgets.exceeded() == [
        "suite storm has no budget: give it one in the Makefile",
        "suite unit took 61 s, its budget in the Makefile is 60",
    ]


def test_figures_stand_between_the_marks_of_a_document(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """What stood there goes; what stands around it stays."""
    document = tmp_path / "results.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    figures = Figures(document, pytestconfig)
    report = pytest.TestReport(
        "tests/storm/test_a.py::test_b", ("", 0, ""), {}, "passed", None, "teardown", user_properties=[("calls", 7)]
    )
    figures.pytest_runtest_logreport(report)
    session = type("Session", (), {"testsfailed": 0})
    figures.pytest_sessionfinish(session)  # type: ignore[arg-type]

    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n1 tests, 0 failed, ")
    assert "| storm | test_b | calls | 7 |\n" in text
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
