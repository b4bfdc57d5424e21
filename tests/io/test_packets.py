"""The one pass over a file's packets: against what decoding gives, for every kind of source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from tests.clips import MS, Clip, Sound, write_clip
from tests.fields import copied, write_fields

TIMES = [Fraction(n, 25) for n in range(20)]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mkv", "libx264", {"bf": "3", "preset": "veryfast"}),
        ("ts", "libx264", {"x264-params": "interlaced=1", "bf": "3"}),  # fields within each frame, not by themselves
        ("mp4", "libx264", {"x264-params": "interlaced=1", "bf": "3"}),
        ("mp4", "libx265", {"x265-params": "log-level=error:bframes=3:pools=1"}),
        ("ts", "libx264", {"bf": "3"}),
        ("avi", "libx264", {"bf": "3"}),
        ("webm", "libvpx-vp9", {"lag-in-frames": "8", "auto-alt-ref": "1", "deadline": "good", "cpu-used": "5"}),
        ("mkv", "libvpx", {"lag-in-frames": "8", "auto-alt-ref": "1"}),
        ("mp4", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    ],
)
def test_the_index_is_what_decoding_gives(suffix: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", Clip(times=TIMES, codec=codec, options=options, time_base=Fraction(1, 25)))
    time_map = scan(path, probe(path)).time_map
    clock = time_map.clock()
    with av.open(str(path)) as container:
        found = tuple(clock.settle(frame.pts, frame.dts) for frame in container.decode(video=0))
    assert found == time_map.times and len(found) == 20


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv"])
def test_a_frame_whose_fields_are_packets_of_their_own_counts_once(suffix: str, tmp_path: Path) -> None:
    path = write_fields(tmp_path / "fields.ts", 20)
    path = path if suffix == "ts" else copied(path, tmp_path / f"copy.{suffix}")
    result = scan(path, probe(path))
    with av.open(str(path)) as container:
        found = tuple(frame.pts + result.time_map.shift_pts for frame in container.decode(video=0) if frame.pts is not None)
    assert found == result.time_map.times and len(found) == 20
    assert len(result.packets) == 40 and sum(packet.hidden for packet in result.packets) == 20
    assert result.time_map.seekable and result.time_map.end_pts - result.time_map.last_pts == Fraction(1, 25) / result.time_base


def test_every_stream_is_timed(tmp_path: Path) -> None:
    sounds = (Sound(codec="ac3", start=Fraction(1, 5)), Sound(codec="aac"))
    path = write_clip(tmp_path / "clip.mkv", Clip(times=TIMES, sounds=sounds))
    result = scan(path, probe(path))
    assert [s.kind for s in result.streams.values()] == ["video", "audio", "audio"]
    assert result.streams[1].start is not None and abs(result.streams[1].start * MS - Fraction(1, 5)) < Fraction(1, 100)
    assert result.streams[0].packets == len(result.packets) == 20 and not result.error and not result.empty


def test_a_file_cut_short_is_scanned_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", Clip(times=TIMES, codec="mjpeg"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 3 < len(scan(path, probe(path)).packets) < 18


def test_hidden_frames_are_not_counted(tmp_path: Path) -> None:
    """VP8's hidden reference frames are packets of their own: before every fourth frame lies one that shows nothing."""
    plain = write_clip(tmp_path / "plain.mkv", Clip(times=TIMES, codec="libvpx"))
    path = tmp_path / "hidden.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            data = bytearray(bytes(packet))
            data[0] &= ~0x10  # show_frame of the frame tag (RFC 6386, 9.1)
            hidden = av.Packet(bytes(data))
            hidden.pts = hidden.dts = (packet.pts or 0) - 20
            hidden.time_base, hidden.stream, packet.stream = packet.time_base, stream, stream
            output.mux([hidden, packet] if number % 4 == 3 else [packet])
    result = scan(path, probe(path))
    assert len(result.packets) == 25
    assert result.time_map.times == scan(plain, probe(plain)).time_map.times


@pytest.mark.parametrize(("stored", "found"), [(None, False), (TIMES, True)])
@pytest.mark.parametrize("bf", ["0", "2"])
def test_times_of_decoding_are_told_by_frames_that_go_back(bf: str, stored: list[Fraction] | None, found: bool, tmp_path: Path) -> None:
    """MPEG-2 says of every stream that it may reorder; what rises in file order and is shown so has its own times."""
    path = write_clip(
        tmp_path / "clip.mkv", Clip(times=TIMES, stored=stored, codec="mpeg2video", options={"bf": bf}, time_base=Fraction(1, 25))
    )
    time_map = scan(path, probe(path)).time_map
    assert time_map.decode_times is (found and bf == "2") and time_map.seekable is not time_map.decode_times
