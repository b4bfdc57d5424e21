"""What is settled of interlace from what the first frames look like."""

from __future__ import annotations

from typing import Any

import pytest

from a2n_video.media.interlace import FieldOrder, InterlaceFindings, plan_interlace

WANTED = ["auto", "frame", "field", "ivtc", "off"]


@pytest.mark.parametrize(
    ("looks", "order"), [("t" * 30, "tff"), ("b" * 30, "bff"), ("pptpbbub", "bff"), ("p" * 30, "auto"), ("", "auto"), ("tb", "auto")]
)
@pytest.mark.parametrize("wanted", WANTED)
def test_a_plan_has_the_field_order_that_was_seen(wanted: Any, looks: str, order: FieldOrder) -> None:
    assert plan_interlace(wanted, InterlaceFindings(frames=len(looks), looks=looks), 480).order == order


@pytest.mark.parametrize(("look", "words"), [("t", "top field first"), ("b", "bottom field first")])
def test_the_plan_says_which_field_it_takes_first(look: str, words: str) -> None:
    assert words in plan_interlace("auto", InterlaceFindings(frames=30, looks=look * 30, combed=30), 480).note
