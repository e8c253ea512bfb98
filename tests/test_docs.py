"""The documentation is true: every example in it runs against a real server."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import remctl
from remctl.testing import Sandbox

ROOT = Path(__file__).resolve().parent.parent

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_gives_what_the_page_shows(box: Sandbox, page: Path) -> None:
    names = {"remctl": remctl, "host": box.host, "port": box.port, "principal": box.principal}
    test = doctest.DocTestParser().get_doctest(page.read_text(), names, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.failed == 0


def test_there_are_examples() -> None:
    assert sum(page.read_text().count(">>> ") for page in PAGES) > 30
