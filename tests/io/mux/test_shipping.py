"""What is cut out of a source for one segment decodes to that segment's frames, at the source's own times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from a2n_video.io.mux.shipping import cut_source
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from tests.clips import TICK, Clip, read_frames, write_clip
from tests.made import frame_hash, make_source, with_long_groups

# Name, ticks of the container, frames' pts; 400 frames at 25 a second are more than a preroll.
SOURCES = {
    "mp4": (Fraction(1, 12800), [512 * n for n in range(400)]),
    "mov": (Fraction(1, 600), [24 * n + n % 2 for n in range(400)]),
    "mkv": (Fraction(1, 1000), [40 * n + n % 3 for n in range(400)]),
    "ts": (Fraction(1, 90_000), [3600 * n for n in range(400)]),
}


@pytest.mark.parametrize("suffix", SOURCES)
def test_a_cut_holds_its_segment(tmp_path: Path, suffix: str) -> None:
    time_base, pts = SOURCES[suffix]
    source = make_source(tmp_path / f"in.{suffix}", pts=pts, time_base=time_base)
    info = probe(source)
    times = scan(source, info).time_map
    with VideoReader(source, info=info, time_map=times) as reader:
        whole = [(frame.pts, frame_hash(frame)) for frame in reader]
    assert len(whole) == len(pts)
    marks = times.marks(150)
    for number, start in enumerate([None, *marks]):
        end = marks[number] if number < len(marks) else None
        cut = tmp_path / f"cut{number}"
        cut.write_bytes(cut_source(source, info, times, start, end))
        with VideoReader(cut, info=info, time_map=times, start_pts=start) as reader:
            frames = [(frame.pts, frame_hash(frame)) for frame in reader]
        wanted = [frame for frame in whole if (start is None or frame[0] >= start) and (end is None or frame[0] < end)]
        assert [frame for frame in frames if end is None or frame[0] < end] == wanted
    assert cut.stat().st_size < source.stat().st_size, "only a part was cut out"


def test_what_no_edit_list_shows_is_cut_out_all_the_same(tmp_path: Path) -> None:
    """A source whose frames all lie before zero is read without its edit list, and so is what is sent of it."""
    early = [Fraction(n, 25) - 5 for n in range(20)]
    source = write_clip(tmp_path / "in.mp4", Clip(times=early, time_base=TICK, options={"g": "1", "bf": "0"}))
    info = probe(source)
    times = scan(source, info).time_map
    cut = tmp_path / "cut"
    cut.write_bytes(cut_source(source, info, times, None, times.times[10]))
    assert info.ignore_edits and cut.stat().st_size < source.stat().st_size
    assert [number for _, number in read_frames(cut)] == list(range(10))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_cut_begins_with_the_keyframe_that_its_segment_needs(codec: str, tmp_path: Path) -> None:
    source, cut = with_long_groups(tmp_path / "in.ts", codec), tmp_path / "cut"
    info = probe(source)
    times = scan(source, info).time_map
    start, end = times.times[70], times.times[90]
    cut.write_bytes(cut_source(source, info, times, start, end))
    assert cut.stat().st_size < source.stat().st_size / 2
    with VideoReader(source, info=info, time_map=times) as reader:
        whole = [(frame.pts, frame_hash(frame)) for frame in reader][70:90]
    with VideoReader(cut, info=info, time_map=times, start_pts=start) as reader:
        assert [(frame.pts, frame_hash(frame)) for frame in reader if frame.pts is not None and frame.pts < end] == whole
