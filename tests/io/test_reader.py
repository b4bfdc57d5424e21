"""Closing a reader midway; the frames that stand in for lost ones. (What it reads: tests/test_timing.py, tests/job/test_damage.py.)"""

from __future__ import annotations

import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video import upscale_video
from a2n_video.frames import color_of_frame
from a2n_video.io.filters import deinterlaced
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader, repeated_frame
from a2n_video.io.seeking import packets_from_keyframe
from a2n_video.media.interlace import InterlacePlan, result_map
from tests.clips import Clip, read_frames, write_clip
from tests.conftest import ROOT
from tests.io.test_filters import VIDEO, combing, flagged_frame, made_frame
from tests.made import frame_hash, make_source, with_empty_sample, with_long_groups
from tests.test_picture import planes_in

CLOSE_EARLY = """
import logging, sys
import av.logging
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader

logging.disable(logging.CRITICAL)
info = probe(sys.argv[1])
time_map = scan(sys.argv[1], info).time_map
av.logging.set_level(av.logging.ERROR)  # as a program around may, or a scan in another thread
for k in range(60):
    with VideoReader(sys.argv[1], info=info, time_map=time_map) as reader:
        next(frame for number, frame in enumerate(reader) if number == k % 20)
"""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = make_source(tmp_path / "damaged.mkv", pts=range(60), codec="libx264")
    data, chance = bytearray(path.read_bytes()), random.Random(1)
    for _ in range(300):
        data[chance.randrange(2000, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return path


def test_a_decoder_whose_threads_have_something_to_say_can_be_closed(damaged: Path) -> None:
    """In a process of its own: without `decoding`'s care it hangs for ever, the GIL held."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSE_EARLY, str(damaged)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def lossy_copy(source: Path, path: Path, *lost: int) -> Path:
    """A file some of whose pictures are there and cannot be decoded."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        target = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            if number in lost:
                broken = av.Packet(bytes(packet.size))
                broken.pts, broken.dts, broken.duration, broken.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
                packet = broken
            packet.stream = target
            output.mux(packet)
    return path


@pytest.mark.parametrize("mode", ["off", "flagged", "all"])
@pytest.mark.parametrize("start", [None, Fraction(2, 5)])
def test_each_lost_frame_has_one_stand_in_wherever_the_result_begins(mode: Any, start: Fraction | None, tmp_path: Path) -> None:
    whole = make_source(tmp_path / "whole.mkv", pts=range(50), codec="mpeg4", audio=())
    damaged = lossy_copy(whole, tmp_path / "in.mkv", 20, 33)
    info = probe(damaged)
    source = scan(damaged, info).time_map
    with VideoReader(damaged, info=info, time_map=source.cut(start=start), source_map=source, deinterlace=mode) as reader:
        times = [frame.pts for frame in reader]
    assert times == list(range(0, 40 * (50 if start is None else 40), 40))
    assert len(reader.damage.repeated_at) == 2


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_a_stand_in_is_interlaced_as_its_frame_is(order: str) -> None:
    """Else it stays woven where only marked frames are deinterlaced."""
    pairs = [pair if order == "tff" else pair[::-1] for pair in VIDEO[:12]]
    frames = [made_frame(number, pair, flagged=False) for number, pair in enumerate(pairs)]
    for number, frame in enumerate(frames):
        frames[number] = flagged_frame(frame, order)
        frames[number].pts = number
    frames[6] = repeated_frame(frames[5], 6)
    assert frames[6].interlaced_frame
    out = list(deinterlaced(iter(frames), InterlacePlan(mode="flagged"), None))  # type: ignore[arg-type]
    assert [frame.pts for frame in out] == list(range(12))
    assert max(combing(planes_in(frame)[0]) for frame in out[1:-1]) < 3
    first, again = (planes_in(frame)[0].astype(int) for frame in out[5:7])
    assert np.abs(first - again).mean() < 3


def test_a_matrix_that_is_not_taken_ends_no_job_in_its_middle(tmp_path: Path) -> None:
    """Its frames are read as those before them; it is damage, told once, and the job is done."""
    source, result = tmp_path / "in.ts", tmp_path / "out.mkv"
    parts = []
    for number, matrix in enumerate(("bt709", "bt2020c", "bt709")):
        clip = Clip(
            times=[Fraction(4 * number + n, 25) for n in range(4)], options={"preset": "ultrafast", "x264-params": f"colormatrix={matrix}"}
        )
        parts.append(write_clip(tmp_path / f"{number}.ts", clip).read_bytes())
    source.write_bytes(b"".join(parts))
    done = upscale_video(source, result, model="nearest", crf=0, preset="ultrafast", segment_frames=3)
    assert (done.frames, done.exit_code, done.damage.errors) == (12, 4, 1)
    assert "bt2020c" in str(done.damage)
    assert [number for _, number in read_frames(result)] == 3 * [0, 1, 2, 3]


@pytest.mark.parametrize("mode", ["off", "field"])
@pytest.mark.parametrize(
    ("first", "then", "said"), [("1:1", "4:3", "4:3 became 16:9"), ("4:3", "1:1", "16:9 became 4:3"), ("1:1", "100:99", "")]
)
def test_a_change_of_shape_is_told(first: str, then: str, said: str, mode: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.ts"
    parts = []
    for number, sar in enumerate((first, then)):
        clip = Clip(
            times=[Fraction(4 * number + n, 25) for n in range(4)],
            options={"preset": "ultrafast", "x264-params": f"sar={sar.replace(':', '/')}"},
        )
        parts.append(write_clip(tmp_path / f"{number}.ts", clip).read_bytes())
    source.write_bytes(b"".join(parts))
    info = probe(source)
    source_map, plan = scan(source, info).time_map, InterlacePlan(mode=mode)
    with VideoReader(source, info=info, time_map=result_map(plan, source_map), source_map=source_map, deinterlace=plan) as reader:
        assert len(list(reader)) == (8 if mode == "off" else 16)
    shown = "squeezed" if first == "1:1" else "stretched"
    assert [note.split(" s ", 1)[1] for note in reader.damage.changes] == [
        f"the source changed ({said}); everything is brought to the first picture's size and format, and is shown {shown} from here on"
        for _ in range(bool(said))
    ]
    assert all(abs(float(note.split()[1]) - 0.16) < 0.01 for note in reader.damage.changes)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("first", [45, 70])
def test_a_seek_ends_at_a_keyframe_also_where_ffmpeg_takes_every_packet_for_one(first: int, codec: str, tmp_path: Path) -> None:
    """In a transport stream it goes by decode time, before which the keyframe lies: what follows it decodes to a wrong picture."""
    source = with_long_groups(tmp_path / "in.ts", codec)
    info = probe(source)
    times = scan(source, info).time_map
    with VideoReader(source, info=info, time_map=times) as reader:
        whole = [(frame.pts, frame_hash(frame)) for frame in reader]
    with VideoReader(source, info=info, time_map=times, start_pts=times.times[first]) as reader:
        assert [(frame.pts, frame_hash(frame)) for frame in reader] == whole[first:]
    with av.open(str(source)) as container:
        packets = packets_from_keyframe(container, container.streams.video[0], times, times.times[first] - 10 * 90_000)
        assert packets is not None
        begun = next(packets)
        assert begun.is_keyframe and begun.pts == times.raw_pts(times.times[24 * ((first - 20) // 24)])


@pytest.mark.parametrize("number", [1, 5, 11])
def test_an_empty_packet_is_no_end(number: int, tmp_path: Path) -> None:
    """Captures have such where a frame was dropped: the one before it is shown for longer."""
    source = with_empty_sample(make_source(tmp_path / "in.mov", pts=range(12), codec="prores_ks", audio=()), number)
    with VideoReader(source) as reader:
        found = [frame.pts for frame in reader]
    assert (len(found), reader.damage.errors, reader.damage.repeated) == (11, 0, 0)
    result = upscale_video(source, tmp_path / "out.mkv", model="nearest")
    assert (result.exit_code, result.frames) == (0, 11)


def test_a_stand_in_leaves_its_frame_alone() -> None:
    frame = made_frame(0, VIDEO[0], flagged=True)
    color = color_of_frame(frame)
    copy = repeated_frame(frame, 9)
    assert (copy.pts, frame.pts, copy.time_base) == (9, 0, frame.time_base)
    assert color_of_frame(copy) == color_of_frame(frame) == color
    assert copy.planes[0].buffer_ptr != frame.planes[0].buffer_ptr
