"""What is cut out of a source for one segment decodes to that segment's frames, at the source's own times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from a2n_video.frames import color_of_frame
from a2n_video.io.mux.shipping import cut_source, needed_of_source
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import PREROLL_S, VideoReader
from a2n_video.media.interlace import InterlacePlan, result_map
from tests.clips import TICK, Clip, read_frames, write_clip
from tests.io.test_decoding import PQ, X265, boxed
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


def test_what_only_the_container_says_holds_for_a_part_of_it(tmp_path: Path) -> None:
    """A part is nut, which names neither colours nor fields."""
    source = boxed(tmp_path / "in.mov", "libx265", PQ, **X265)
    info = probe(source)
    times = scan(source, info).time_map
    cut = tmp_path / "cut"
    cut.write_bytes(cut_source(source, info, times, None, times.times[2]))
    assert probe(cut).container == "nut"
    with VideoReader(cut, info=info, time_map=times) as reader:
        assert {color_of_frame(frame) for frame in reader} == {info.color}
    assert info.color.transfer == 16


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


def test_a_cut_leaves_an_edit_list_aside_that_shows_nothing(tmp_path: Path) -> None:
    times = [Fraction(n, 2) - 30 for n in range(50)]
    source = write_clip(tmp_path / "in.mp4", Clip(times=times, time_base=Fraction(1, 12800), options={"bf": "0", "g": "5"}))
    info = probe(source)
    assert info.ignore_edits
    found = scan(source, info).time_map
    start = found.times[45]
    (tmp_path / "cut").write_bytes(cut_source(source, info, found, start, None))
    with VideoReader(tmp_path / "cut", info=info, time_map=found, start_pts=start) as reader:
        assert [frame.pts for frame in reader] == list(found.times[45:])


def test_a_cut_of_a_transport_stream_begins_with_a_keyframe_early_enough(tmp_path: Path) -> None:
    """It seeks by decode time, and lands behind a keyframe with which frames are reordered."""
    source = make_source(tmp_path / "in.ts", pts=SOURCES["ts"][1], time_base=SOURCES["ts"][0], audio=())
    info = probe(source)
    times = scan(source, info).time_map
    for start in times.times[300::17]:
        (tmp_path / "cut").write_bytes(cut_source(source, info, times, start, start + 3600))
        with av.open(str(tmp_path / "cut")) as cut:
            shown = [(packet.pts, packet.is_keyframe) for packet in cut.demux(video=0) if packet.size]
        wanted = times.raw_pts(times.keyframe_before(start - PREROLL_S * 90_000))
        first = next(pts for pts, keyframe in shown if keyframe)
        assert wanted - 2 * 12 * 3600 <= first <= wanted, "within two groups of pictures"


def test_a_cycle_at_the_beginning_of_a_transport_stream_is_whole(tmp_path: Path) -> None:
    """Without the stream's first frames, ivtc leaves another one of five out, and the others come at its times."""
    source = make_source(tmp_path / "in.ts", pts=[3600 * n for n in range(40)], time_base=Fraction(1, 90_000), audio=())
    info, plan = probe(source), InterlacePlan(mode="ivtc")
    times = scan(source, info).time_map
    result = result_map(plan, times)
    with VideoReader(source, info=info, time_map=result, source_map=times, deinterlace=plan) as reader:
        whole = [(frame.pts, frame_hash(frame)) for frame in reader]
    start, end = result.times[11], result.times[22]
    (tmp_path / "cut").write_bytes(cut_source(source, info, times, *needed_of_source(result, times, "ivtc", start, end)))
    with VideoReader(tmp_path / "cut", info=info, time_map=result, source_map=times, deinterlace=plan, start_pts=start) as reader:
        frames = [(frame.pts, frame_hash(frame)) for frame in reader]
    assert [frame for frame in frames if frame[0] < end] == whole[11:22]
