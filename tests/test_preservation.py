"""Everything else in the file: each thing of tests/survival.py in each container, kept byte for byte, converted, or named and dropped."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video import upscale_video
from a2n_video.errors import MissingDependencyError, OptionError
from a2n_video.io.probe import probe
from a2n_video.job.planning.plan import prepare
from a2n_video.media.streams import StreamFate
from a2n_video.options import JobOptions
from tests.clips import MS, read_frames, read_stream
from tests.made import frame_hash
from tests.survival import (
    BEGIN,
    CONTAINERS,
    CUES,
    END,
    FONTS,
    ITEMS,
    KEPT,
    LOST,
    PART,
    README,
    TAGS,
    TRACKS,
    Item,
    clip,
    image,
    second_video,
    sounds,
    table,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each source is made once, when a case first asks for it."""
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str) -> Path:
        path = folder / f"{name}.{ITEMS[name].suffix}".replace(" ", "").replace(",", "-")
        if not path.exists():
            try:
                ITEMS[name].make(path)
            except MissingDependencyError as error:
                pytest.skip(str(error))
        return path

    return make


def quick(item: Item, container: str) -> dict[str, Any]:
    """Encoder options with which the case is quick: by the encoder that the container gets by default."""
    if container == "avi" and item.checks in ("hdr10", "hlg"):
        return {}
    if container != "webm":
        return {"preset": "ultrafast"}
    if item.checks in ("hdr10", "hlg"):
        return {"preset": "12", "encoder_options": {"svtav1-params": "lp=1"}}
    return {"preset": "8", "encoder_options": {"deadline": "realtime"}}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", list(ITEMS))
def test_each_thing_has_the_fate_the_table_says(name: str, container: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    item, source, result = ITEMS[name], made(name), tmp_path / f"out.{container}"
    upscale_video(source, result, model="nearest", threads=1, **quick(item, container))
    fate = item.fates[container]
    if fate in (LOST, PART):
        assert_lost(item, source, result)
        assert fate == PART or not present(item, result)
        with pytest.raises(OptionError, match=item.lost_as):
            upscale_video(source, tmp_path / f"all.{container}", model="nearest", keep_all=True)
    elif fate == KEPT:
        CHECKS[item.checks](source, result)
        assert not losses(source, result)
    else:
        assert_converted(fate, source, result)
    assert [number for _, number in read_frames(result)][:6] == list(range(6)) or item.checks in ("hdr10", "hlg")


def losses(source: Path, result: Path) -> tuple[StreamFate, ...]:
    """What the plan says is lost, told before anything is written."""
    return prepare(source, result.with_stem("planned"), JobOptions().with_changes(model="nearest")).streams.losses


def assert_lost(item: Item, source: Path, result: Path) -> None:
    """The plan names it, with a reason."""
    assert item.lost_as
    lost = losses(source, result)
    assert any(item.lost_as in fate.what and fate.reason for fate in lost), lost


def present(item: Item, result: Path) -> bool:
    """Whether any of the kind is in the result: a stream that is not the video."""
    if item.checks == "marks":
        return any(marks(result))
    kind = {"fonts": "attachment", "tracks": "audio", "cover": "video", "second_video": "video"}.get(item.checks, item.checks)
    with av.open(str(result)) as container:
        return len([s for s in container.streams if s.type == kind]) > (kind == "video")


def tags_of(stream: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in stream.metadata.items()}


def assert_same_packets(kind: str, number: int, source: Path, result: Path) -> None:
    """Byte for byte, each at its time against the first frame, to 1 ms. Transport streams cut H.264 and put ADTS headers before AAC."""
    if result.suffix == ".ts" and kind == "video":
        assert pictures(source, number) == pictures(result, number)
        return
    strip = 7 if result.suffix == ".ts" and "aac" in source.name else 0
    before, after = read_stream(source, kind, number), read_stream(result, kind, number, strip)
    start, found_start = read_frames(source)[0][0], read_frames(result)[0][0]
    assert [digest for _, digest in before] == [digest for _, digest in after]
    assert all(abs((a - start) - (b - found_start)) <= MS for (a, _), (b, _) in zip(before, after, strict=True))


def pictures(path: Path, number: int) -> list[tuple[int, str]]:
    """(milliseconds after the first video's first frame, hash of the pixels) of every frame of a video."""
    start = read_frames(path)[0][0]
    with av.open(str(path)) as container:
        frames = [(f.pts * Fraction(f.time_base) - start, frame_hash(f)) for f in container.decode(video=number)]
    return [(round(time / MS), digest) for time, digest in frames]


def check_audio(source: Path, result: Path) -> None:
    with av.open(str(source)) as a, av.open(str(result)) as b:
        assert a.streams.audio[0].codec_context.codec.canonical_name == b.streams.audio[0].codec_context.codec.canonical_name
        if a.streams.audio[0].codec_context.name.startswith("pcm"):
            assert pcm(source) == pcm(result)
            return
    assert_same_packets("audio", 0, source, result)


def pcm(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def check_subtitle(source: Path, result: Path) -> None:
    if source.suffix == ".mp4":  # MP4's muxer fills gaps with empty samples
        assert cues(source) == cues(result)
    else:
        assert_same_packets("subtitle", 0, source, result)
    with av.open(str(source)) as a, av.open(str(result)) as b:
        before, after = a.streams.subtitles[0], b.streams.subtitles[0]
        assert tags_of(before).get("language") == tags_of(after).get("language")
        assert (tags_of(before).get("title") or tags_of(before).get("name")) == (tags_of(after).get("title") or tags_of(after).get("name"))


def cues(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    """(start, end, text) of every cue, read without the product."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            for rect in (stream.codec_context.decode2(packet) or []) if packet.size else []:
                base = Fraction(packet.time_base)
                text = rect.ass.decode().split(",", 8)[-1]
                found.append((packet.pts * base, (packet.pts + packet.duration) * base, text))
    return found


def assert_converted(codec: str, source: Path, result: Path) -> None:
    """Another codec, the same words at the same times, language and mark kept."""
    with av.open(str(result)) as container:
        stream = container.streams.subtitles[0]
        assert stream.codec_context.codec.canonical_name == codec
        assert tags_of(stream)["language"] == "ger"
        assert (tags_of(stream).get("title") or tags_of(stream).get("name")) == "Untertitel"
        found = cues(result)
    assert len(found) == len(CUES)
    for (start, end, text), (begins, ends, words) in zip(CUES, found, strict=True):
        assert abs(begins - start * MS) <= MS and abs(ends - end * MS) <= MS
        assert re.sub(r"\{.*?\}", "", words) == re.sub(r"\{.*?\}", "", text)


def check_fonts(source: Path, result: Path) -> None:
    with av.open(str(result)) as container:
        found = {tags_of(s)["filename"]: (tags_of(s)["mimetype"], s.data) for s in container.streams if s.type == "attachment"}
    assert found == FONTS


def check_tracks(source: Path, result: Path) -> None:
    for number, track in enumerate(TRACKS):
        assert_same_packets("audio", number, source, result)
        with av.open(str(result)) as container:
            stream = container.streams.audio[number]
            assert tags_of(stream)["language"] == track.tags["language"]
            assert (tags_of(stream).get("title") or tags_of(stream).get("name")) == track.tags.get("title")


def check_marks(source: Path, result: Path) -> None:
    assert marks(source) == [8, 128]
    assert marks(result) == [8, 128]


def marks(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [int(stream.disposition) & (8 | 128) for stream in container.streams.audio]


def check_cover(source: Path, result: Path) -> None:
    codec = "mjpeg" if "jpg" in source.name else "png"
    with av.open(str(result)) as container:
        pictures = [s for s in container.streams.video if int(s.disposition) & 0x400]
        assert len(pictures) == 1 and len(container.streams.video) == 2
        assert bytes(next(p for p in container.demux(pictures[0]) if p.size)) == image(codec)


def check_chapters(source: Path, result: Path) -> None:
    with av.open(str(source)) as a, av.open(str(result)) as b:
        before, after = ([(c["start"] * Fraction(c["time_base"]), c["metadata"]["title"]) for c in x.chapters()] for x in (a, b))
    assert len(before) == 3 and [title for _, title in before] == [title for _, title in after]
    assert all(abs(a - b) <= MS for (a, _), (b, _) in zip(before, after, strict=True))


def check_timecode(source: Path, result: Path) -> None:
    with av.open(str(result)) as container:
        found = {
            value
            for tags in (container.metadata, *(s.metadata for s in container.streams))
            for key, value in tags.items()
            if key.lower() == "timecode"
        }
    assert found == {"01:02:03:04"}


def check_tags(source: Path, result: Path) -> None:
    with av.open(str(result)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert {key: found.get(key) for key in TAGS} == TAGS


def check_other_tags(source: Path, result: Path) -> None:
    with av.open(str(result)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert found.get("com.maker.lens") == "35 mm" and found.get("title") == TAGS["title"]


def check_second_video(source: Path, result: Path) -> None:
    assert_same_packets("video", 1, source, result)
    assert (probe(result, video_number=0).width, probe(result, video_number=0).height) == (128, 96)


def check_sar(source: Path, result: Path) -> None:
    with av.open(str(result)) as container:
        assert Fraction(container.streams.video[0].sample_aspect_ratio) == Fraction(32, 27)
        assert len(list(container.decode(video=0))) == 6


def check_matrix(source: Path, result: Path) -> None:
    before, after = probe(source).display_matrix, probe(result).display_matrix
    straight = (65536, 0, 0, 65536)
    name = source.stem.removeprefix("turned-")
    assert before is not None or name == "0", "the source is not what it should be"
    turn = [tuple(matrix[i] for i in (0, 1, 3, 4)) if matrix else straight for matrix in (before, after)]
    assert turn[0] == turn[1]
    assert (probe(result).width, probe(result).height) == (128, 96), "pixels are not turned"


def check_hdr10(source: Path, result: Path) -> None:
    check_deep(source, result, 16)
    before, after = probe(source).hdr, probe(result).hdr
    assert before is not None and after is not None
    assert (before.max_content, before.max_average, before.max_luminance) == (after.max_content, after.max_average, after.max_luminance)
    assert (before.max_content, before.max_luminance) == (1000, 1000)
    # AV1 stores colours in 1/65536 and the lowest luminance in 1/16384, HEVC in 1/50000 and 1/10000.
    for a, b in ((before.red, after.red), (before.green, after.green), (before.blue, after.blue), (before.white, after.white)):
        assert a is not None and b is not None and max(abs(a[0] - b[0]), abs(a[1] - b[1])) < Fraction(1, 30000)
    assert before.min_luminance is not None and after.min_luminance is not None
    assert abs(before.min_luminance - after.min_luminance) < Fraction(1, 10000)


def check_hlg(source: Path, result: Path) -> None:
    check_deep(source, result, 18)


def check_deep(source: Path, result: Path, transfer: int) -> None:
    info = probe(result)
    assert info.planes.depth == 10
    assert (info.color.primaries, info.color.transfer, info.color.matrix) == (9, transfer, 9)


CHECKS: dict[str, Callable[[Path, Path], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


def test_a_blu_ray_stream_has_a_time_before_each_packet(tmp_path: Path) -> None:
    """192 bytes for each, as disc tools want them; a plain transport stream has 188."""
    source, options = tmp_path / "in.mkv", {"model": "nearest", "preset": "ultrafast"}
    clip(source, add=lambda output: [*sounds(*TRACKS[:2])(output), *second_video(output)])
    for box, size in (("ts", 188), ("m2ts", 192)):
        result = upscale_video(source, tmp_path / f"out.{box}", **options).path
        assert packet_size(result) == size
        with av.open(str(result)) as output:
            assert [(s.metadata.get("language"), s.codec_context.name) for s in output.streams.audio] == [("ger", "aac"), ("eng", "ac3")]
    assert "another h264" in next(fate.reason for fate in losses(source, tmp_path / "a.m2ts") if fate.kind == "video")


def packet_size(path: Path) -> int | None:
    """How long a transport stream's packets are: each one's last 188 bytes begin with 0x47."""
    data = path.read_bytes()
    fits = [size for size in (188, 192) if len(data) % size == 0 and set(data[size - 188 :: size]) == {0x47}]
    return fits[0] if fits else None


def test_readme_shows_this_table() -> None:
    assert f"{BEGIN}\n{table()}\n{END}" in README.read_text(), "run python -m tests.survival --write"
