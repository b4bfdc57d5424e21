"""Which chapters a result has, and when they begin. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from a2n_video.media.containers import CHAPTERS_FROM_ZERO
from a2n_video.media.final import FinalFile
from a2n_video.media.info import Chapter

_AT_ONCE: Final = Fraction(1, 1000)  # containers round to this


def shifted_chapters(final: FinalFile) -> list[Chapter]:
    """The source's chapters on the result's clock by their beginning, cut at its start and end; those wholly outside are left out.

    Sorted, since Matroska's reader leaves out one that comes after a later one.
    """
    kept = []
    begin, limit = final.time_map.begin, final.time_map.limit
    for chapter in final.info.chapters:
        start, end = final.time_map.seconds_of(chapter.start), final.time_map.seconds_of(chapter.end)
        if limit is not None and start >= limit:
            continue
        start, end = start if begin is None else max(start, begin), end if limit is None else min(end, limit)
        if start < end or (start == end and chapter.start == chapter.end):
            kept.append(Chapter(id=chapter.id, start=start, end=end, metadata=chapter.metadata))
    return sorted(kept, key=lambda chapter: chapter.start)


def fills_before_chapters(final: FinalFile, chapters: Sequence[Chapter]) -> Chapter | None:
    """What stands before the first chapter in a container that would else let that one begin with the file: one without a name."""
    late = final.plan.container in CHAPTERS_FROM_ZERO and bool(chapters) and chapters[0].start >= _AT_ONCE
    return Chapter(id=0, start=Fraction(0), end=chapters[0].start) if late else None
