"""Damaged and truncated sources: finished as far as they go, told, and never exit 0.

The complete form, a cut at every two per cent: `pytest -m slow tests/job/test_damage.py`.
"""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import IncompleteSourceError, InputError, exit_code
from a2n_video.io.reader import VideoReader, repeated_frame
from a2n_video.io.whole import cut_short
from a2n_video.job.result import UpscaleResult
from a2n_video.job.run import upscale_video
from tests.made import decoded, frame_hash, make_source, packets, picture, with_broken_pictures

BOXES = {"mkv": "libx264", "mp4": "libx264", "ts": "libx264", "avi": "mpeg4"}
FRAMES = 100


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("damage")
    audio = {"avi": "mp3"}
    return {
        box: make_source(folder / f"whole.{box}", pts=range(FRAMES), codec=codec, audio=(audio.get(box, "aac"),))
        for box, codec in BOXES.items()
    }


def upscale(source: Path, dest: Path, **changes: Any) -> UpscaleResult:
    presets = {".webm": "8", ".y4m": None}
    return upscale_video(source, dest, model="nearest", **{"preset": presets.get(dest.suffix, "ultrafast")} | changes)


def outcome(source: Path, dest: Path) -> tuple[int, int]:
    """Exit code and frames of the result (0: none)."""
    try:
        result = upscale(source, dest)
    except InputError as error:
        assert not dest.exists()
        return exit_code(error), 0
    assert len(decoded(dest)) == result.frames
    return result.exit_code, result.frames


def decodable(source: Path) -> int:
    """Frames that a plain decoder makes of a file."""
    try:
        with av.open(str(source)) as container:
            count = 0
            for packet in container.demux(container.streams.video[0]):
                try:
                    count += len(packet.decode())
                except av.FFmpegError:
                    continue
            return count
    except (av.FFmpegError, IndexError):
        return 0


@pytest.mark.parametrize("box", BOXES)
def test_a_whole_source_is_no_damage(sources: dict[str, Path], tmp_path: Path, box: str) -> None:
    assert cut_short(sources[box]) is None
    assert outcome(sources[box], tmp_path / "out.mkv") == (0, FRAMES)


@pytest.mark.parametrize(
    ("tail", "missing"), [(bytes(4), None), (bytes(40), None), (b"\0\0\1\0", "4 bytes"), (b"\0\0\0\x09free", "1 bytes")]
)
def test_zeros_behind_the_last_box_are_padding(sources: dict[str, Path], tmp_path: Path, tail: bytes, missing: str | None) -> None:
    path = tmp_path / "in.mp4"
    path.write_bytes(sources["mp4"].read_bytes() + tail)
    found = cut_short(path)
    assert found is None if missing is None else missing in (found or "")


def check_truncation(source: Path, folder: Path, percent: int) -> None:
    data = source.read_bytes()
    cut = folder / f"cut{percent}{source.suffix}"
    cut.write_bytes(data[: len(data) * percent // 100])
    code, frames = outcome(cut, folder / f"{percent}.mkv")
    assert code in (3, 4), f"{percent} %: exit {code} with {frames} frames"
    assert frames >= decodable(cut) or code == 3


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("percent", [2, 30, 50, 70, 90, 98])
def test_truncated_sources_never_pass_as_whole(sources: dict[str, Path], tmp_path: Path, box: str, percent: int) -> None:
    check_truncation(sources[box], tmp_path, percent)


@pytest.mark.slow
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("percent", range(2, 100, 2))
def test_truncated_at_every_two_percent(sources: dict[str, Path], tmp_path: Path, box: str, percent: int) -> None:
    check_truncation(sources[box], tmp_path, percent)


@pytest.fixture
def broken(sources: dict[str, Path], tmp_path: Path) -> Path:
    """A file of the right size in which some pictures in the middle cannot be decoded."""
    return with_broken_pictures(sources["mkv"], tmp_path / "broken.mkv", slice(40, 44))


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_broken_packet_near_the_end_costs_none_of_the_frames_after_it(tmp_path: Path, nth: int) -> None:
    whole = make_source(tmp_path / "whole.mov", pts=range(16), codec="libx265", audio=())
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        payload = [bytes(p) for p in container.demux(video=0) if p.size][-nth]
    start = bytes(data).index(payload)
    data[start : start + len(payload)] = bytes(len(payload))
    broken = tmp_path / "broken.mov"
    broken.write_bytes(data)
    assert outcome(broken, tmp_path / "out.mkv") == (4, 16)


def test_the_last_good_frame_stands_in(broken: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    result = upscale(broken, tmp_path / "out.mkv")
    assert result.exit_code == 4
    assert result.damage.errors >= 1
    assert result.damage.repeated >= 1
    assert "damaged source" in result.summary
    times = [pts * base for pts, base, _ in decoded(tmp_path / "out.mkv")]
    whole = [pts * base for pts, base, _ in decoded(sources["mkv"])]
    assert [t - times[0] for t in times] == [t - whole[0] for t in whole]  # no frame lost, time and sync hold
    assert [hash for _, _, hash in packets(tmp_path / "out.mkv", 1)] == [hash for _, _, hash in packets(broken, 1)]


def test_a_damaged_source_can_be_refused(broken: Path, tmp_path: Path) -> None:
    for change in ({"fail_on_damage": True}, {"max_errors": 0}):
        with pytest.raises(IncompleteSourceError, match="damaged") as caught:
            upscale(broken, tmp_path / "out.mkv", **change)
        assert exit_code(caught.value) == 4
        assert not (tmp_path / "out.mkv").exists()
    assert upscale(broken, tmp_path / "out.mkv", max_errors=1000).exit_code == 4


@pytest.mark.parametrize("dest", ["out.mkv", "out.y4m"])
def test_errors_before_a_part_are_none_of_its_own(broken: Path, dest: str, tmp_path: Path) -> None:
    """Its first frame, 75, needs the keyframe 72; what is broken lies before 48."""
    changes = {"sandbox": dest != "out.y4m", "fail_on_damage": True}
    result = upscale(broken, tmp_path / dest, start=3, frames=10, **changes)
    assert (result.exit_code, result.frames, result.damage.errors, result.damage.repeated) == (0, 10, 0, 0)


@pytest.mark.parametrize("dest", ["out.mkv", "out.y4m"])
@pytest.mark.parametrize("first", [37, 42, 47])
def test_errors_in_what_a_part_is_made_from_are_its_own(broken: Path, first: int, dest: str, tmp_path: Path) -> None:
    """Before or after its first frame: no keyframe lies between them and it, so they can be seen in it."""
    part = {"start": Fraction(first, 25), "frames": 10}
    result = upscale(broken, tmp_path / dest, **part)
    assert (result.exit_code, result.frames) == (4, 10) and result.damage.errors and result.damage.first
    with pytest.raises(IncompleteSourceError, match="damaged"):
        upscale(broken, tmp_path / dest, overwrite=True, fail_on_damage=True, **part)


def test_a_cut_source_can_be_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(sources["mkv"].read_bytes()[:-2000])
    with pytest.raises(IncompleteSourceError, match="2000 bytes are missing"):
        upscale(cut, tmp_path / "out.mkv", fail_on_damage=True)


def test_errors_of_earlier_runs_are_counted_once(broken: Path, tmp_path: Path) -> None:
    unbroken = upscale(broken, tmp_path / "a.mkv", segment_frames=10)

    class Stop(Exception):
        pass

    def stop(frames: int) -> None:
        if frames == 75:
            raise Stop

    with pytest.raises(Stop):
        upscale_video(broken, tmp_path / "b.mkv", model="nearest", preset="ultrafast", segment_frames=10, on_progress=stop)
    resumed = upscale(broken, tmp_path / "b.mkv", segment_frames=10)
    assert resumed.resumed_frames == 70
    assert resumed.damage.errors == unbroken.damage.errors
    assert decoded(tmp_path / "a.mkv") == decoded(tmp_path / "b.mkv")


@pytest.fixture(scope="module")
def five_errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute, longer than readers decode on their way, of pictures of their own, of which five are zeros."""
    source = tmp_path_factory.mktemp("five") / "in.mkv"
    with av.open(str(source), "w") as output:
        video = output.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuvj420p"
        for number in range(1500):
            frame = picture(number, 64, 64, "yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in video.encode(frame):
                broken = av.Packet(bytes(40) if number in (125, 150, 175, 1250, 1275) else bytes(packet))
                broken.pts, broken.dts, broken.duration, broken.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
                broken.stream = video
                output.mux(broken)
    return source


def test_more_errors_than_allowed_are_too_many_however_often_it_goes_on(five_errors: Path, tmp_path: Path) -> None:
    settings = {"segment_frames": 24, "deinterlace": "off"}
    assert upscale(five_errors, tmp_path / "whole.mkv", max_errors=5, **settings).damage.errors == 5
    for _ in range(3):
        with pytest.raises(IncompleteSourceError, match="4 decode errors, the first at packet at pts 5000"):
            upscale(five_errors, tmp_path / "out.mkv", max_errors=3, **settings)
        assert not (tmp_path / "out.mkv").exists()
    with pytest.raises(IncompleteSourceError, match="decode errors, the first at packet at pts 5000"):
        upscale(five_errors, tmp_path / "out.mkv", fail_on_damage=True, **settings)
    result = upscale(five_errors, tmp_path / "out.mkv", max_errors=5, **settings)
    assert result.resumed_frames > 0
    whole = upscale(five_errors, tmp_path / "again.mkv", **settings)
    assert (result.damage, result.exit_code) == (whole.damage, 4)
    assert (whole.damage.errors, whole.damage.repeated) == (5, 5)


def test_an_error_before_what_is_made_again_is_counted_once(five_errors: Path, tmp_path: Path) -> None:
    """Two holes, made by two readers that both decode it on their way."""
    settings = {"segment_frames": 24, "deinterlace": "off", "frames": 290, "max_errors": 3}
    whole = upscale(five_errors, tmp_path / "whole.mkv", **settings)

    def stop(frames: int) -> None:
        if frames >= 280:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(five_errors, tmp_path / "out.mkv", on_progress=stop, **settings)
    for number in (8, 10):
        (tmp_path / "out.mkv.a2n" / f"{number:06d}.nut").unlink()
    result = upscale(five_errors, tmp_path / "out.mkv", **settings)
    assert result.resumed_frames > 0
    assert (result.damage, result.damage.errors, result.damage.repeated) == (whole.damage, 3, 3)


def test_damage_that_a_demuxer_only_logs_is_told(sources: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(sources["mkv"].read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path = tmp_path / "hit.mkv"
    path.write_bytes(data)
    result = upscale(path, tmp_path / "out.mkv")
    assert result.exit_code == 4
    assert "EBML" in (result.damage.cut_short or "")


def test_a_packet_too_large_for_any_memory_is_damage(tmp_path: Path) -> None:
    """As a damaged table of sizes names it: reading itself ends then, before the first frame."""
    source = make_source(tmp_path / "in.mp4", pts=range(8), audio=())
    data = bytearray(source.read_bytes())
    first_size = data.index(b"stsz") + 16
    data[first_size : first_size + 4] = (1 << 29).to_bytes(4)
    source.write_bytes(data)
    assert outcome(source, tmp_path / "out.mkv") == (4, 0)


def test_a_length_beyond_any_file_is_damage(sources: dict[str, Path], tmp_path: Path) -> None:
    """An element before Matroska's segment that claims more than a file can be asked for."""
    data = sources["mkv"].read_bytes()
    segment = data.index(b"\x18\x53\x80\x67")
    path = tmp_path / "in.mkv"
    path.write_bytes(data[:segment] + b"\xec\x01" + bytes([0x7F, *[0xFF] * 6]) + data[segment:])
    assert "bytes are missing" in (cut_short(path) or "")
    assert outcome(path, tmp_path / "out.mkv")[0] in (3, 4)


def zeroed(source: Path, kind: str, chosen: slice) -> Path:
    """The source with some packets of its sound or picture made zeros, in place."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        payloads = [bytes(p) for p in container.demux(**{kind: 0}) if p.size]
    for payload in payloads[chosen]:
        start = bytes(data).index(payload)
        data[start : start + len(payload)] = bytes(len(payload))
    source.write_bytes(data)
    return source


@pytest.mark.parametrize("chosen", [slice(0, 2), slice(8, 11), slice(-2, None), slice(None)], ids=["first", "middle", "last", "all"])
def test_sound_that_cannot_be_decoded_leaves_a_gap_where_it_is_made_anew(chosen: slice, tmp_path: Path) -> None:
    whole = make_source(tmp_path / "whole.mkv", pts=range(50), audio=("flac",))
    assert upscale(whole, tmp_path / "whole.webm", codec="libvpx-vp9", reencode_audio="opus").exit_code == 0
    broken = zeroed(make_source(tmp_path / "broken.mkv", pts=range(50), audio=("flac",)), "audio", chosen)
    result = upscale(broken, tmp_path / "out.webm", codec="libvpx-vp9", reencode_audio="opus")
    assert result.exit_code == 4
    assert result.damage.undecoded >= 1
    assert "cannot be decoded" in result.summary
    wanted, found = ([time for time, _, _ in packets(path, 1)] for path in (tmp_path / "whole.webm", tmp_path / "out.webm"))
    assert len(found) < len(wanted)
    assert all(min(abs(time - other) for other in wanted) < Fraction(1, 40) for time in found)  # the rest keeps its time


def test_sound_whose_times_step_back_is_made_anew_one_after_the_other(tmp_path: Path) -> None:
    made = make_source(tmp_path / "back.mkv", pts=range(50), audio=("flac",))
    data = bytearray(made.read_bytes())
    with av.open(str(made)) as container:
        late = [bytes(packet) for packet in container.demux(audio=0) if packet.size and 900 < packet.pts < 1100]
    for payload in late:
        time = data.index(payload) - 3  # of a Matroska block, in milliseconds, before its flags
        data[time : time + 2] = (int.from_bytes(data[time : time + 2]) - 500).to_bytes(2, signed=True)
    made.write_bytes(data)
    result = upscale(made, tmp_path / "out.webm", codec="libvpx-vp9", reencode_audio="opus")
    assert result.exit_code == 4
    assert result.damage.moved >= 1
    assert "step back in time" in result.summary
    times = [time for time, _, _ in packets(tmp_path / "out.webm", 1)]
    assert times == sorted(times)
    assert times[-1] > Fraction(19, 10)


def test_sound_whose_layout_changes_is_made_anew_as_one(tmp_path: Path) -> None:
    """As in a broadcast: a film in stereo, then the news in mono."""
    source, made = make_source(tmp_path / "in.mkv", pts=range(50), audio=("mp2",)), tmp_path / "changes.mkv"
    mono: Any = av.CodecContext.create("mp2", "w")
    mono.sample_rate, mono.layout, mono.format = 48000, "mono", "s16"
    silence = av.AudioFrame(format="s16", layout="mono", samples=1152)
    silence.sample_rate = 48000
    with av.open(str(source)) as given, av.open(str(made), "w") as output:
        targets = [output.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.size and packet.stream_index == 1 and packet.pts > 1000:
                payload = bytes(mono.encode(silence)[0])
                news = av.Packet(payload)
                news.pts, news.dts, news.duration, news.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
                news.stream = targets[1]
                output.mux(news)
            elif packet.size:
                packet.stream = targets[packet.stream_index]
                output.mux(packet)
    assert upscale(made, tmp_path / "out.webm", codec="libvpx-vp9", reencode_audio="opus").exit_code == 0
    times = [time for time, _, _ in packets(tmp_path / "out.webm", 1)]
    assert all(later - earlier < Fraction(1, 40) for earlier, later in pairwise(times))
    assert times[-1] > Fraction(19, 10)


def test_repeated_frame_is_equal_and_independent() -> None:
    frame = picture(3, pix_fmt="yuv420p10le")
    frame.pts, frame.time_base = 5, Fraction(1, 25)
    copy = repeated_frame(frame, 9)
    assert frame_hash(copy) == frame_hash(frame)
    assert (copy.pts, frame.pts, copy.time_base, copy.format.name) == (9, 5, Fraction(1, 25), "yuv420p10le")
    copy.planes[0].update(bytes(copy.planes[0].buffer_size))
    assert frame_hash(copy) != frame_hash(frame)


@pytest.mark.parametrize("box", BOXES)
def test_any_flipped_bytes_end_in_a_known_way(sources: dict[str, Path], tmp_path: Path, box: str) -> None:
    whole = sources[box].read_bytes()
    for seed in range(6):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"{seed}.{box}"
        path.write_bytes(data)
        code, frames = outcome(path, tmp_path / f"out{seed}.mkv")
        assert code in (0, 3, 4)
        assert frames >= decodable(path) or code != 0


def test_reader_without_damage_repeats_nothing(sources: dict[str, Path]) -> None:
    with VideoReader(sources["mp4"]) as reader:
        assert len(list(reader)) == FRAMES
        assert (reader.damage.errors, reader.damage.repeated) == (0, 0)
