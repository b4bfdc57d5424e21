"""The README says what is true: its tables are the code's, its files exist, its Python runs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.readme import README, TABLES, block

TEXT = README.read_text()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_are_made_from_the_code(name: str) -> None:
    assert block(name, TEXT) == TABLES[name](), "run: python -m tests.readme"


def test_files_it_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT) + re.findall(r"<img[^>]*src=\"([^\":]+)\"", TEXT):
        assert (ROOT / target).exists(), target


def test_both_commands_are_there() -> None:
    for name in ("first command", "test command"):
        command = block(name, TEXT)
        assert command is not None
        assert command.startswith("    python3 -m venv ")


def test_it_names_no_place_of_one_machine() -> None:
    for path in [README, *ROOT.glob("vs_plugin/*.md"), *ROOT.glob("examples/*.md")]:
        assert not re.search(r"/(work|root|home|tmp)/", path.read_text()), path
