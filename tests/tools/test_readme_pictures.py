"""The README's pictures are those that one command remakes, small enough, by commands that the tools understand."""

from __future__ import annotations

import re
import shlex

import pytest

from a2n_video import cli
from a2n_video.tools import look
from tests.conftest import ROOT
from tests.readme_pictures import COMMANDS, LARGEST, MAKERS, PICTURES


def test_every_picture_of_the_readme_can_be_made_anew() -> None:
    shown = set(re.findall(r"\(examples/pictures/([^)]+)\)", (ROOT / "README.md").read_text()))
    assert shown <= {*MAKERS, "attention-course.jpg"}


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_are_there_and_small(name: str) -> None:
    assert 1000 < (PICTURES / name).stat().st_size <= LARGEST


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_understood(name: str) -> None:
    words = shlex.split(COMMANDS[name].replace("OUT", name))
    arguments = cli.parser().parse_args(words[1:]) if words[0] == "a2n-video" else look.parser().parse_args(words[3:])
    assert name in map(str, vars(arguments).values())
