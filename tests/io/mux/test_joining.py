"""Segments joined: every frame and every pts exact, wherever the cuts fall.

The complete form, 550 joins: `pytest -m slow tests/io/mux/test_joining.py`.
"""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest

from a2n_video.errors import EncodeError
from a2n_video.io.mux.joining import check_joinable, joined_packets, scan_segment, segment_container
from a2n_video.io.mux.remux import RemuxJob, remux
from a2n_video.io.outfile import OutFile
from a2n_video.io.probe import probe
from a2n_video.io.writer import VideoWriter
from a2n_video.media.final import FinalFile
from a2n_video.media.index import PacketTime, TimeMap, build_time_map
from a2n_video.media.streams import StreamFate, StreamPlan
from tests.made import BT709, decoded, frames, make_source, settings

CODECS = ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1"]
# ffv1 has no tag in mp4; prores shows that segments in mov join as well.
PAIRS = [(codec, box) for codec in CODECS for box in ("mkv", "mp4") if (codec, box) != ("ffv1", "mp4")] + [
    ("ffv1", "nut"),
    ("prores_ks", "mov"),
]
BASE = Fraction(1, 90000)


def vfr(seed: int, count: int = 60) -> list[int]:
    """Uneven pts in 90 kHz, whole milliseconds apart so that mkv can keep them."""
    rng = random.Random(seed)
    pts = [rng.choice([0, 9000])]
    while len(pts) < count:
        pts.append(pts[-1] + 90 * rng.choice([20, 33, 40, 41, 100]))
    return pts


def segments(folder: Path, codec: str, pts: list[int], cuts: list[int], base: Fraction = BASE) -> tuple[Path, ...]:
    made = []
    for start, end in zip([0, *cuts], [*cuts, len(pts)], strict=True):
        path = folder / f"{start}.seg"
        file = OutFile(path, "segment")
        with VideoWriter(file, settings(codec, base, segment_container(codec))) as writer:  # type: ignore[arg-type]
            for frame in frames(pts[start:end], base, pix_fmt=writer.settings.pix_fmt, first=start):
                writer.write(frame)
        file.finish()
        made.append(path)
    return tuple(made)


def time_map(pts: list[int], base: Fraction = BASE) -> TimeMap:
    return build_time_map([PacketTime(time, time) for time in pts], base, None)


def join(folder: Path, made: tuple[Path, ...], pts: list[int], box: str, source: Path) -> Path:
    info = probe(source)
    plan = StreamPlan(container=box, fates=(StreamFate(what="video", kind="video", fate="upscaled", index=info.video_index),))  # type: ignore[arg-type]
    dest = folder / f"joined.{box}"
    file = OutFile(dest)
    final = FinalFile(info=info, plan=plan, time_map=time_map(pts), width=64, height=48, color=BT709)
    result = remux(RemuxJob(final=final, segments=made, time_base=BASE), file)
    file.finish()
    assert result.video_packets == len(pts)
    return dest


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "a.mp4", pts=range(3), audio=())


def check_join(folder: Path, codec: str, box: str, seed: int, source: Path) -> None:
    rng = random.Random(seed)
    pts = vfr(seed)
    cuts = sorted(rng.sample(range(1, len(pts)), rng.randrange(1, 5)))
    made = segments(folder, codec, pts, cuts)
    alone = [hash for path in made for _, _, hash in decoded(path)]
    joined = decoded(join(folder, made, pts, box, source))
    assert [number * base for number, base, _ in joined] == [time * BASE for time in pts]
    assert [hash for _, _, hash in joined] == alone


@pytest.mark.parametrize(("codec", "box"), PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_random_cuts_join_exactly(tmp_path: Path, codec: str, box: str, seed: int, source: Path) -> None:
    check_join(tmp_path, codec, box, seed, source)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "box"), PAIRS)
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_random_cuts_join_exactly(tmp_path: Path, codec: str, box: str, seed: int, source: Path) -> None:
    check_join(tmp_path, codec, box, seed, source)


@pytest.mark.parametrize("base", [Fraction(1, 16000), Fraction(1001, 24000), Fraction(1, 1000), Fraction(1, 25)])
def test_segments_keep_any_time_base(tmp_path: Path, base: Fraction) -> None:
    pts = [3, 4, 6, 7, 8, 12, 13]
    [made] = segments(tmp_path, "libx264", pts, [], base)
    assert list(scan_segment(made, base).pts) == pts


def test_dts_rise_and_never_pass_pts(tmp_path: Path) -> None:
    pts = vfr(3)
    scans = [scan_segment(path, BASE) for path in segments(tmp_path, "libx264", pts, [17, 18, 40])]
    packets = [(p.pts, p.dts, p.duration) for p in joined_packets(scans, 777)]
    dts = [d for _, d, _ in packets]
    assert dts == sorted(set(dts))
    assert all(d <= p for p, d, _ in packets)
    assert max(scan.depth for scan in scans) > 0  # there are B-frames to reorder
    ends = {p + d for p, _, d in packets}
    assert ends == {*pts[1:], pts[-1] + 777}  # each frame lasts until the next


@pytest.mark.parametrize("steps", [[40] * 30, [40] * 29 + [10_000], [40] * 27 + [8000, 40, 40], [5000] + [40] * 29, [40] * 28 + [8000, 40]])
def test_a_track_that_ends_with_the_packet_decoded_last_ends_with_the_last_frame(steps: list[int], tmp_path: Path) -> None:
    """So MP4 and QuickTime are read: a track lasts from the first dts until the last packet ends, and no frame until after its last."""
    pts = [90 * sum(steps[:n]) for n in range(len(steps))]
    end = 90 * sum(steps)
    scans = [scan_segment(path, BASE) for path in segments(tmp_path, "libx264", pts, [20])]
    packets = [(p.pts, p.dts, p.duration) for p in joined_packets(scans, 90 * steps[-1], ends_by_dts=True)]
    dts = [d for _, d, _ in packets]
    assert dts == sorted(set(dts)) and all(d <= p for p, d, _ in packets) and dts[0] < 0
    assert dts[-1] + packets[-1][2] - dts[0] == end
    assert max(p + d for p, _, d in packets) == end


def test_another_header_is_refused(tmp_path: Path) -> None:
    pts = vfr(1)
    (tmp_path / "b").mkdir()
    first, second = segments(tmp_path, "libx264", pts, [30])
    file = OutFile(tmp_path / "b" / "other")
    with VideoWriter(file, settings("libx264", BASE, options={"preset": "veryfast", "bf": "0"})) as writer:  # type: ignore[arg-type]
        for frame in frames(pts[30:], BASE):
            writer.write(frame)
    file.finish()
    check_joinable([scan_segment(first, BASE), scan_segment(second, BASE)])
    with pytest.raises(EncodeError, match="header"):
        check_joinable([scan_segment(first, BASE), scan_segment(file.path, BASE)])


def test_segments_out_of_order_are_refused(tmp_path: Path) -> None:
    first, second = (scan_segment(path, BASE) for path in segments(tmp_path, "ffv1", vfr(1), [30]))
    with pytest.raises(EncodeError, match="begins before"):
        check_joinable([second, first])


def test_what_is_no_segment_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not a video")
    with pytest.raises(EncodeError, match="not a segment"):
        scan_segment(tmp_path / "x", BASE)


def test_segments_of_every_encoder_have_a_container() -> None:
    for codec in ("libx264", "prores_ks", "dnxhd", "mjpeg", "mpeg4", "libvpx-vp9", "ffv1"):
        output = av.open("x", "w", format=segment_container(codec))
        assert av.Codec(codec, "w").name in output.supported_codecs
    assert segment_container("libvpx-vp9", alpha=True) == "matroska"
