"""What a container refuses is found when a job is planned: in the part that is taken, in FFmpeg's words, without reading on for hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video.io.mux import copying, trial
from a2n_video.io.mux.trial import unwritable_streams
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.job.planning.plan import prepare
from a2n_video.media.index import TimeMap
from a2n_video.media.streams import StreamFate, StreamPlan
from a2n_video.options import JobOptions
from tests.clips import Clip, Sound, write_clip
from tests.made import make_source
from tests.survival import clip, picture_packets, sounds

FRAME = Fraction(1, 25)


def tried(source: Path, box: str, **cut: Any) -> dict[int, str]:
    """The refusals of everything but the first video, for a part."""
    info = probe(source)
    streams = [stream for stream in info.streams if stream.index != info.video_index]
    fates = tuple(StreamFate(what=s.codec, kind=s.kind, index=s.index, fate="copied") for s in streams)
    time_map = scan(source, info).time_map.cut(**cut)
    return unwritable_streams(source, info, StreamPlan(container=box, fates=fates), time_map)  # type: ignore[arg-type]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, int]:
    """How many packets the trial reads."""
    count = {"read": 0}

    def readable(*arguments: Any) -> Iterator[Any]:
        for packet in copying.readable(*arguments):
            count["read"] += 1
            yield packet

    monkeypatch.setattr(trial, "readable", readable)
    return count


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """Forty seconds of sound, beside a video of three pictures."""

    def add(output: Any) -> list[Any]:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        return [lambda: picture_packets(stream, 3), *sounds(Sound(seconds=Fraction(40)))(output)]

    clip(tmp_path / "in.mkv", add=add, frames=49)
    return tmp_path / "in.mkv"


@pytest.mark.parametrize("cut", [{}, {"start": Fraction(1)}])
def test_a_sparse_stream_does_not_read_the_whole_source(cut: dict[str, Any], sparse: Path, counted: Mapping[str, int]) -> None:
    assert tried(sparse, "nut", **cut) == {}
    assert 500 <= counted["read"] < 650, "up to the bound, but for what lies between a keyframe and the cut"


def test_it_reads_no_more_than_it_needs(tmp_path: Path, counted: Mapping[str, int]) -> None:
    source = make_source(tmp_path / "in.mkv", pts=range(200))
    assert tried(source, "mp4") == {} and counted["read"] < 60
    assert tried(source, "mp4", start=Fraction(6)) == {} and counted["read"] < 60 + 100, "it does not read what lies before"


def test_a_refusal_is_quoted(tmp_path: Path) -> None:
    """E-AC-3 that nut calls AC-3."""
    sound = Sound(codec="eac3", layout="stereo", start=FRAME)
    source = write_clip(
        tmp_path / "in.nut", Clip(times=[n * FRAME for n in range(30)], time_base=FRAME, sounds=(sound,), options={"bf": "0"})
    )
    [reason] = tried(source, "mp4").values()
    assert reason.startswith("mp4 refuses it: ") and "AC-3" in reason


def test_it_tries_what_the_cut_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packets a muxer is given here are those that it is given at the end."""
    source = write_clip(
        tmp_path / "in.mkv", Clip(times=[n * FRAME for n in range(50)], time_base=FRAME, sounds=(Sound(seconds=Fraction(2)),))
    )
    seen: list[Fraction] = []
    monkeypatch.setattr(trial._Trial, "write", lambda self, packet: seen.append(packet.pts * Fraction(packet.time_base)))
    tried(source, "mkv", start=Fraction(1))
    assert 0 <= seen[0] < FRAME


def test_a_plan_tries_the_part_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path / "in.mkv", pts=range(50))
    maps: list[TimeMap] = []
    monkeypatch.setattr("a2n_video.job.planning.plan.unwritable_streams", lambda path, info, plan, time_map: maps.append(time_map) or {})
    plan = prepare(source, tmp_path / "out.mp4", JobOptions().with_changes(model="nearest", start=Fraction(1)))
    assert maps == [plan.time_map] and plan.time_map.begin == 0
