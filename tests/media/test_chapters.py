"""Which chapters a result has: those that begin or lie in its part, on its clock."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video.job.expected import due_chapters
from a2n_video.media.chapters import fills_before_chapters, shifted_chapters
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.final import FinalFile
from a2n_video.media.index import PacketTime, build_time_map
from a2n_video.media.info import Chapter
from a2n_video.media.streams import StreamPlan
from tests.media.test_streams import source

S = Fraction


def final(chapters: list[tuple[Fraction, Fraction]], box: str = "mkv", **cut: Any) -> FinalFile:
    """Four seconds at 25 a second, with these chapters."""
    info = source(
        path=Path("in"), chapters=tuple(Chapter(id=n, start=a, end=b, metadata={"title": f"{n}"}) for n, (a, b) in enumerate(chapters))
    )
    times = build_time_map([PacketTime(n * 40, n * 40) for n in range(100)], Fraction(1, 1000), Fraction(25)).cut(**cut)
    plan = StreamPlan(container=box, fates=())  # type: ignore[arg-type]
    return FinalFile(info=info, plan=plan, time_map=times, width=64, height=48, color=ColorSpec())


CHAPTERS = [(S(2), S(3)), (S(0), S(1)), (S(1), S(2)), (S(1), S(1)), (S(2), S(2)), (S(3), S(9))]
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, Fraction, Fraction]]]] = {
    "all": ({}, [("1", S(0), S(1)), ("2", S(1), S(2)), ("3", S(1), S(1)), ("0", S(2), S(3)), ("4", S(2), S(2)), ("5", S(3), S(9))]),
    "from": (
        {"start": S(8, 5)},
        [("2", S(0), S(2, 5)), ("0", S(2, 5), S(7, 5)), ("4", S(2, 5), S(2, 5)), ("5", S(7, 5), S(37, 5))],
    ),
    "at": ({"start": S(1), "end": S(2)}, [("2", S(0), S(1)), ("3", S(0), S(0))]),
    "to": ({"end": S(3, 2)}, [("1", S(0), S(1)), ("2", S(1), S(3, 2)), ("3", S(1), S(1))]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_chapters_are_moved_and_cut(name: str) -> None:
    cut, expected = CASES[name]
    made = final(CHAPTERS, **cut)
    assert [(c.metadata["title"], c.start, c.end) for c in shifted_chapters(made)] == expected
    assert due_chapters(made) == [(start, title) for title, start, _ in expected], "verification counts the same by itself"


@pytest.mark.parametrize(("box", "start", "fills"), [("mp4", S(1), True), ("mov", S(1), True), ("mp4", S(0), False), ("mkv", S(1), False)])
def test_one_without_a_name_fills_what_lies_before_the_first(box: str, start: Fraction, fills: bool) -> None:
    made = final([(start, S(2))], box)
    filling = fills_before_chapters(made, shifted_chapters(made))
    assert (filling is not None) == fills and (filling is None or (filling.start, filling.end, dict(filling.metadata)) == (0, start, {}))
