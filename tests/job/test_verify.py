"""The verification finds what is wrong: a sound result passes, and one spoiled in each way is named for just that."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video import upscale_video
from a2n_video.errors import OptionError, VerificationError
from a2n_video.io.inspect import essence
from a2n_video.io.mux import remux
from a2n_video.io.mux.copying import stream_like
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.job.expected import Expected, expect
from a2n_video.job.planning.plan import prepare
from a2n_video.job.verify import VerifyReport, compare, verify
from a2n_video.media.index import LEAD_IN
from a2n_video.media.info import HdrMetadata
from a2n_video.options import JobOptions
from tests.clips import TICK, Clip, Sound, read_frames, with_gap, write_clip
from tests.io.mux.test_audio import SAMPLES, with_sound
from tests.made import make_source
from tests.survival import TRACKS, clip, fonts, picture_packets, sounds, text_subtitles

FRAME = Fraction(1, 25)
STEADY = [n * FRAME for n in range(30)]
Change = Callable[[Any], Any]
Spoil = Callable[[Any, Any, dict[int, Any]], None]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Expected, Path]:
    """A source with a bit of everything, upscaled, and what its result must be."""
    folder = tmp_path_factory.mktemp("verify")
    source, result = folder / "source.mkv", folder / "result.mkv"

    def add(output: Any) -> list[Any]:
        made = [*sounds(*TRACKS)(output), *text_subtitles("srt")(output)]
        fonts(output)
        return made

    clip(source, add=add, chapters=True, tags={"title": "T"}, frames=8)
    upscale_video(source, result, model="nearest", preset="ultrafast")
    plan = prepare(source, folder / "again.mkv", JobOptions().with_changes(model="nearest", preset="ultrafast"))
    return expect(plan, scan(source, probe(source)).time_map.times), result


def rewritten(path: Path, result: Path, spoil: Spoil, leave_out: tuple[int, ...] = (), change: Change = lambda packet: packet) -> None:
    """Copy a file with something wrong in it."""
    with av.open(str(result)) as source, av.open(str(path), "w", format="matroska") as output:
        targets = {
            s.index: output.add_stream_from_template(s, opaque=True)
            for s in source.streams
            if s.type != "attachment" and s.index not in leave_out
        }
        for stream in source.streams:
            if stream.index in targets:
                targets[stream.index].metadata.update(stream.metadata)
                targets[stream.index].disposition = stream.disposition
            elif stream.type == "attachment":
                output.add_attachment(stream.metadata["filename"], stream.metadata["mimetype"], stream.data)
        output.set_chapters(source.chapters())
        output.metadata.update(source.metadata)
        spoil(source, output, targets)
        for packet in source.demux([s for s in source.streams if s.index in targets]):
            if packet.size:
                packet.dts = packet.pts if packet.dts is None else packet.dts
                index = packet.stream_index
                changed = change(packet)
                if changed is not None:
                    changed.stream = targets[index]
                    output.mux(changed)


def shifted(index: int, by: int) -> Callable[[Any], Any]:
    def change(packet: Any) -> Any:
        if packet.stream_index == index:
            packet.pts += by
            packet.dts += by
        return packet

    return change


def without(index: int, number: int) -> Callable[[Any], Any]:
    seen: list[Any] = []

    def change(packet: Any) -> Any:
        if packet.stream_index == index:
            seen.append(packet)
            return None if len(seen) == number + 1 else packet
        return packet

    return change


def shortened(index: int) -> Callable[[Any], Any]:
    def change(packet: Any) -> Any:
        if packet.stream_index == index:
            packet.duration = min(packet.duration, round(FRAME / Fraction(packet.time_base)))
        return packet

    return change


def spoilt_byte(index: int) -> Callable[[Any], Any]:
    def change(packet: Any) -> Any:
        if packet.stream_index != index:
            return packet
        data = bytearray(bytes(packet))
        data[-1] ^= 1
        other = av.Packet(bytes(data))
        other.pts, other.dts, other.duration, other.time_base, other.is_keyframe = (
            packet.pts,
            packet.dts,
            packet.duration,
            packet.time_base,
            True,
        )
        return other

    return change


def nothing(source: Any, output: Any, targets: dict[int, Any]) -> None:
    return None


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "last frame dropped": ({"change": without(0, 7)}, "8 frames were encoded, 7 are in the result"),
    "sound late": ({"change": shifted(1, 5)}, r"audio 1 .* comes \+5.00 ms late"),
    "sound early": ({"change": shifted(2, -3)}, r"audio 2 .* comes -3.00 ms late"),
    "subtitle moved": ({"change": shifted(4, 2)}, r"subtitle 1 .* \+2.00 ms late"),
    "a packet lost": ({"change": without(1, 3)}, r"audio 1 .*: \d+ packets, \d+ in the result"),
    "a byte changed": ({"change": spoilt_byte(2)}, r"audio 2 .*: packet 0 has other contents"),
    "a track missing": ({"leave_out": (3,)}, "audio 3 .* is missing"),
    "language": ({"spoil": lambda s, o, t: t[1].metadata.update(language="fre")}, "language is fre, not ger"),
    "title": ({"spoil": lambda s, o, t: t[2].metadata.update(title="x")}, "title is 'x', not 'Commentary'"),
    "a mark lost": ({"spoil": lambda s, o, t: setattr(t[1], "disposition", 0)}, "lost the mark default"),
    "a mark given": ({"spoil": lambda s, o, t: setattr(t[2], "disposition", 0x40)}, "was given the mark forced"),
    "chapters": ({"spoil": lambda s, o, t: o.set_chapters(s.chapters()[:2])}, "3 chapters, 2 in the result"),
    "tag": ({"spoil": lambda s, o, t: o.metadata.update(title="U")}, "tag title is 'U', not 'T'"),
}


def test_a_sound_result_passes_in_one_line(job: tuple[Expected, Path]) -> None:
    expected, result = job
    assert verify(expected, result).line == "verified: 8 frames, 3 audio, 1 subtitle, 3 chapters, 2 attachments identical"


@pytest.mark.parametrize("name", list(SPOILT))
def test_each_fault_is_named(name: str, job: tuple[Expected, Path], tmp_path: Path) -> None:
    expected, result = job
    changes, words = SPOILT[name]
    rewritten(tmp_path / "spoilt.mkv", result, changes.get("spoil", nothing), **{k: v for k, v in changes.items() if k != "spoil"})
    with pytest.raises(VerificationError, match=words):
        verify(expected, tmp_path / "spoilt.mkv")


def test_an_honest_copy_is_no_fault(job: tuple[Expected, Path], tmp_path: Path) -> None:
    rewritten(tmp_path / "copy.mkv", job[1], nothing)
    assert not compare(job[0], tmp_path / "copy.mkv").differences


def test_attachments_of_one_name_are_compared_each(tmp_path: Path) -> None:
    given = [("A.ttf", "font/ttf", b"one"), ("A.ttf", "font/ttf", b"two"), ("A.ttf", "font/ttf", b"two")]
    source = make_source(tmp_path / "in.mkv", pts=range(4), audio=(), attachments=given)
    result = upscale_video(source, tmp_path / "out.mkv", model="nearest", preset="ultrafast")
    assert result.verified == "verified: 4 frames, 3 attachments identical"
    plan = prepare(source, tmp_path / "again.mkv", JobOptions().with_changes(model="nearest", preset="ultrafast"))
    expected = expect(plan, scan(source, probe(source)).time_map.times)
    for number, left in enumerate((given[1:], given[:2])):
        other = make_source(tmp_path / f"{number}.mkv", pts=range(4), audio=(), attachments=left)
        upscale_video(other, tmp_path / f"out{number}.mkv", model="nearest", preset="ultrafast")
        assert compare(expected, tmp_path / f"out{number}.mkv").differences == ("attachment A.ttf is missing or differs",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 130}, "size is 128x96, not 130x96"),
        ({"pix_fmt": "yuv420p10le"}, "pixel format is yuv420p, not yuv420p10le"),
        ({"sar": Fraction(2)}, "sample aspect ratio is 1, not 2"),
        ({"display_matrix": (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)}, "display matrix is None"),
        ({"hdr": HdrMetadata(max_content=1000)}, "HDR10 max content is missing, not 1000"),
    ],
)
def test_the_picture_is_compared(change: dict[str, Any], words: str, job: tuple[Expected, Path]) -> None:
    assert any(words in difference for difference in compare(expecting(job[0], **change), job[1]).differences)


def expecting(expected: Expected, **changes: Any) -> Expected:
    """The same with another final file in mind."""
    return replace(expected, final=replace(expected.final, **changes))


def test_frames_are_counted(job: tuple[Expected, Path]) -> None:
    assert "9 frames were encoded, 8 are in the result" in compare(replace(job[0], encoded=9), job[1]).differences


@pytest.mark.parametrize("field", ["matrix", "primaries", "transfer"])
def test_colour_tags_are_compared(field: str, job: tuple[Expected, Path]) -> None:
    expected = expecting(job[0], color=replace(job[0].final.color, **{field: 9}))
    assert any(d.startswith(field) and d.endswith("not 9") for d in compare(expected, job[1]).differences)


def test_the_timecode_of_the_video_is_compared(job: tuple[Expected, Path]) -> None:
    info = job[0].final.info
    video = replace(info.video, metadata={**info.video.metadata, "TIMECODE": "01:00:00:00"})
    expected = expecting(job[0], info=replace(info, streams=(video, *info.streams[1:])))
    assert compare(expected, job[1]).differences == ("the video's timecode is None, not 01:00:00:00",)


def test_a_frame_out_of_place_is_named(job: tuple[Expected, Path]) -> None:
    times = array("q", job[0].times)
    times[3] += 2
    assert any("frame 3 comes -2.00 ms" in difference for difference in compare(replace(job[0], times=times), job[1]).differences)


@pytest.mark.parametrize("box", ["mkv", "mp4", "mov"])
def test_a_last_frame_cut_short_is_named(box: str, tmp_path: Path) -> None:
    source, result = write_clip(tmp_path / "source.mkv", Clip(times=[*STEADY, Fraction(10)], codec="mjpeg")), tmp_path / f"result.{box}"
    changes: dict[str, Any] = {"model": "nearest", "preset": "ultrafast", "end": Fraction(6)}
    upscale_video(source, result, **changes)
    plan = prepare(source, tmp_path / f"again.{box}", JobOptions().with_changes(**changes))
    expected = expect(plan, plan.time_map.times)
    assert not compare(expected, result).differences
    rewritten(tmp_path / "spoilt.mkv", result, nothing, change=shortened(0))
    assert compare(expected, tmp_path / "spoilt.mkv").differences == ("the last frame lasts 0.040 s, not 4.840 s",)


def test_what_is_no_video_is_a_verification_error(job: tuple[Expected, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mkv").write_bytes(b"not a video at all")
    with pytest.raises(VerificationError, match="cannot be read back"):
        verify(job[0], tmp_path / "broken.mkv")


@pytest.mark.parametrize("container", ["mkv", "mp4", "mov", "ts", "webm"])
def test_every_container_verifies_and_converts(container: str, tmp_path: Path) -> None:
    """From a transport stream, with AAC in ADTS headers, to each; audio is made anew where it must be."""
    source = tmp_path / "source.ts"
    clip(source, add=sounds(Sound(codec="aac", seconds=Fraction(1, 2))), frames=10)
    done = upscale_video(source, tmp_path / f"out.{container}", model="nearest", reencode_audio="opus" if container == "webm" else None)
    assert done.verified == "verified: 10 frames, 1 audio identical"


def test_sound_that_an_edit_list_hides_is_not_due_where_it_is_made_anew(tmp_path: Path) -> None:
    """The decoder drops it: it is no sound that is missing."""
    sound = Sound(start=Fraction(-1), seconds=Fraction(2))
    times = [n * FRAME - 1 for n in range(50)]
    source = write_clip(tmp_path / "in.mp4", Clip(times=times, time_base=TICK, options={"bf": "0", "g": "10"}, sounds=(sound,)))
    done = upscale_video(source, tmp_path / "out.webm", model="nearest", reencode_audio="opus", codec="libvpx-vp9", preset="8")
    assert done.verified == "verified: 25 frames, 1 audio identical"


@pytest.mark.parametrize(
    ("codec", "layout", "container", "anew", "becomes"),
    [
        ("ac3", "5.1(side)", "webm", "opus", "5.1"),  # every DVD's, which libopus refuses
        ("flac", "4.0", "webm", "opus", "quad"),
        ("flac", "7.1", "ts", "ac3", "5.1"),
        ("flac", "5.1", "ts", "mp3", "stereo"),
    ],
)
def test_sound_is_made_anew_in_the_nearest_layout_its_encoder_takes(
    codec: str, layout: str, container: str, anew: str, becomes: str, tmp_path: Path
) -> None:
    source, dest = tmp_path / "source.mkv", tmp_path / f"out.{container}"
    clip(source, add=sounds(Sound(codec=codec, layout=layout, seconds=Fraction(1, 4))))
    plan = prepare(source, dest, JobOptions().with_changes(model="nearest", reencode_audio=anew))
    [reason] = [fate.reason for fate in plan.streams.fates if fate.kind == "audio"]
    assert reason.endswith(f"; {layout} becomes {becomes}")
    assert upscale_video(source, dest, model="nearest", reencode_audio=anew).exit_code == 0
    with av.open(str(dest)) as result:
        assert result.streams.audio[0].layout.name.removesuffix("(side)") == becomes


def test_an_audio_encoder_that_is_not_there_is_told_before_the_first_frame(tmp_path: Path) -> None:
    clip(tmp_path / "source.mkv", add=sounds(Sound(codec="aac", seconds=Fraction(1, 4))))
    with pytest.raises(OptionError, match="no encoder libvorbis"):
        prepare(tmp_path / "source.mkv", tmp_path / "out.webm", JobOptions().with_changes(model="nearest", reencode_audio="vorbis"))


def test_sound_whose_header_says_nothing_is_left_out(tmp_path: Path) -> None:
    source, dest = tmp_path / "source.mkv", tmp_path / "out.webm"
    clip(source, add=sounds(Sound(codec="mp2", layout="stereo", seconds=Fraction(1, 4))))
    data = source.read_bytes()
    assert data.count(b"A_MPEG/L2") == 1
    source.write_bytes(data.replace(b"A_MPEG/L2", b"A_MPEG/L9"))
    assert upscale_video(source, dest, model="nearest", reencode_audio="opus").verified == "verified: 6 frames"


@pytest.mark.parametrize("names", [[""], ["", "named"]])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_chapters_without_names_stay_so(suffix: str, names: list[str], tmp_path: Path) -> None:
    chapters = [(Fraction(number, 4), Fraction(number + 1, 4), name) for number, name in enumerate(names)]
    source = make_source(tmp_path / "in.mkv", pts=range(12), audio=(), chapters=chapters)
    assert upscale_video(source, tmp_path / f"out.{suffix}", model="nearest", preset="ultrafast").exit_code == 0
    assert [chapter.metadata.get("title", "") for chapter in probe(tmp_path / f"out.{suffix}").chapters] == names


# What a plan calls kept must be so at the end: each of these cost a whole job its result.
SURVIVES: dict[str, tuple[str, str, Clip]] = {
    f"{codec} from {suffix} to {box}": (suffix, box, Clip(times=STEADY, time_base=FRAME, codec=video, sounds=(sound,), options={"bf": "0"}))
    for suffix, box, video, codec in (
        ("avi", "mkv", "mpeg4", "libmp3lame"),
        ("mp4", "nut", "libx264", "aac"),
        ("mov", "nut", "libx264", "aac"),
        ("avi", "avi", "mpeg4", "ac3"),
        ("avi", "avi", "mpeg4", "aac"),
        ("avi", "nut", "mpeg4", "mp2"),
        ("mp4", "nut", "libx264", "libmp3lame"),
        ("nut", "mp4", "libx264", "libopus"),
        ("nut", "mp4", "libx264", "flac"),
        ("flv", "mp4", "flv", "flac"),
    )
    for sound in (
        Sound(
            codec=codec,
            layout="stereo",
            rate=48000 if codec == "libopus" else 44100,
            start=FRAME if suffix == "nut" else Fraction(0),
            seconds=Fraction(6 if box == "nut" else 5, 5),
        ),
    )
}


@pytest.mark.parametrize("name", list(SURVIVES))
def test_sound_that_is_copied_comes_through_every_muxer(name: str, tmp_path: Path) -> None:
    suffix, box, made = SURVIVES[name]
    source = write_clip(tmp_path / f"in.{suffix}", made)
    done = upscale_video(source, tmp_path / f"out.{box}", model="nearest", preset="ultrafast", keep_all=box != "avi")
    assert done.verified == f"verified: {len(STEADY)} frames, 1 audio identical"


def test_sound_in_blocks_comes_through_avi_however_they_are_packed(tmp_path: Path) -> None:
    """WAV's reader gives several blocks a packet, and so they lie in what FFmpeg copies from it; AVI's gives one."""
    times = [Fraction(n, 25) for n in range(10)]
    made = Clip(times=times, codec="mpeg4", time_base=Fraction(1, 25), sounds=(Sound(codec="adpcm_ms"),))
    single = write_clip(tmp_path / "single.avi", made)
    packed = tmp_path / "packed.mkv"
    with av.open(str(single)) as source, av.open(str(packed), "w", format="matroska") as output:
        targets: list[Any] = [stream_like(stream, output) for stream in source.streams]
        blocks = list(source.demux(source.streams.audio[0]))[:-1]
        source.seek(0)
        packets: list[Any] = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        for first, *more in (blocks[place : place + 4] for place in range(0, len(blocks), 4)):
            joined = av.Packet(b"".join(map(bytes, (first, *more))))
            joined.pts, joined.dts, joined.time_base, joined.stream = first.pts, first.dts, first.time_base, first.stream
            joined.is_keyframe = True
            packets.append(joined)
        for packet in sorted(packets, key=lambda packet: packet.pts * packet.time_base):
            packet.stream = targets[packet.stream.index]
            output.mux(packet)
    assert upscale_video(packed, tmp_path / "out.avi", model="nearest").verified == "verified: 10 frames, 1 audio identical"


@pytest.mark.parametrize("codec", ["ac3", "aac", "libmp3lame"])
def test_reordered_video_comes_through_nut_beside_sound(codec: str, tmp_path: Path) -> None:
    """Its first decode times lie before zero, where nut writes what is read as years away."""

    def add(output: Any) -> list[Any]:
        stream = output.add_stream("libx264", rate=25, options={"bf": "3", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        return [lambda: picture_packets(stream, 20), *sounds(Sound(codec=codec, layout="stereo"))(output)]

    clip(tmp_path / "in.mp4", add=add, frames=20)
    done = upscale_video(tmp_path / "in.mp4", tmp_path / "out.nut", model="nearest", preset="veryfast", encoder_options={"bf": "3"})
    assert done.verified == "verified: 20 frames, 1 video, 1 audio identical"
    times = [time for time, _ in read_frames(tmp_path / "out.nut")]
    assert [time - times[0] for time in times] == [n * FRAME for n in range(20)] and 0 <= times[0] < LEAD_IN


@pytest.mark.parametrize("more", ["", ":hdr10=1:max-cll=1000,400:master-display=G(1,1)B(1,1)R(1,1)WP(1,1)L(10,1)"])
@pytest.mark.parametrize("box", ["ts", "nut", "mkv", "mp4"])
def test_a_header_that_ts_repeats_before_keyframes_is_no_difference(box: str, more: str, tmp_path: Path) -> None:
    """As a second video from MP4: x265 puts its name there, and HDR10."""

    def add(output: Any) -> list[Any]:
        params = f"log-level=none:pools=1:frame-threads=1:keyint=5:min-keyint=5{more}"
        stream = output.add_stream("libx265", rate=25, options={"preset": "ultrafast", "x265-params": params})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = FRAME
        return [lambda: picture_packets(stream, 12)]

    clip(tmp_path / "in.mp4", add=add, frames=12)
    done = upscale_video(tmp_path / "in.mp4", tmp_path / f"out.{box}", model="nearest", preset="ultrafast")
    assert done.verified == "verified: 12 frames, 1 video identical"


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second video with B-frames and a keyframe every ten frames."""

    def add(output: Any) -> list[Any]:
        options = {"bf": "2", "b-adapt": "0", "g": "10", "sc_threshold": "0", "preset": "veryfast", "threads": "1"}
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        return [lambda: picture_packets(stream, 30)]

    path = tmp_path_factory.mktemp("two") / "in.mp4"
    clip(path, add=add, frames=30)
    return path


@pytest.mark.parametrize("box", ["nut", "mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("number", [*range(6), 10, 12])
def test_a_second_video_that_is_cut_begins_with_a_keyframe(number: int, box: str, two_videos: Path, tmp_path: Path) -> None:
    """Decoded from there, it shows what the source shows, and nothing that was cut off is asked for."""
    dest = tmp_path / f"out.{box}"
    done = upscale_video(two_videos, dest, model="nearest", preset="ultrafast", start=number * FRAME, end=28 * FRAME)
    assert done.verified == f"verified: {28 - number} frames, 1 video identical"
    first = -(-number // 10) * 10
    with av.open(str(dest)) as made, av.open(str(two_videos)) as source:
        found = [frame.to_ndarray() for frame in made.decode(video=1)]
        pictures = [frame.to_ndarray() for frame in source.decode(video=1)]
    assert len(found) >= 25 - first and all((a == b).all() for a, b in zip(found[: 25 - first], pictures[first:25], strict=True))


@pytest.mark.parametrize("box", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("number", [23, 24, 25, 26])  # decoded as 20 23 21 22 26 24 25 29
def test_a_second_video_that_is_cut_ends_with_pictures_as_they_were(number: int, box: str, two_videos: Path, tmp_path: Path) -> None:
    """None is kept that refers to one beyond the end, and the plan says how many that costs."""
    dest = tmp_path / f"out.{box}"
    plan = prepare(two_videos, dest, JobOptions().with_changes(model="nearest", preset="ultrafast", end=number * FRAME))
    upscale_video(two_videos, dest, model="nearest", preset="ultrafast", end=number * FRAME)
    with av.open(str(dest)) as made, av.open(str(two_videos)) as source:
        found = [frame.to_ndarray() for frame in made.decode(video=1)]
        pictures = [frame.to_ndarray() for frame in source.decode(video=1)]
    lost = [fate.what for fate in plan.streams.losses]
    assert lost == {1: ["the last picture of video 2 (h264)"], 2: ["the last 2 pictures of video 2 (h264)"]}.get(number - len(found), [])
    assert len(found) == {23: 21, 24: 24, 25: 24, 26: 24}[number]
    assert all((a == b).all() for a, b in zip(found, pictures, strict=False))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_a_reordered_video_that_is_cut_comes_through_avi(codec: str, tmp_path: Path) -> None:
    """AVI tells no times: a picture whose neighbour is missing came where that one belongs."""

    def add(output: Any) -> list[Any]:
        stream = output.add_stream(codec, rate=25, options={"bf": "2", "g": "12", "b_strategy": "0", "sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = FRAME
        return [lambda: picture_packets(stream, 30)]

    clip(tmp_path / "in.mkv", add=add, frames=30)
    done = upscale_video(tmp_path / "in.mkv", tmp_path / "out.avi", model="nearest", preset="ultrafast", end=26 * FRAME)
    assert done.verified == "verified: 26 frames, 1 video identical"


@pytest.mark.parametrize("box", ["nut", "mp4"])
def test_a_second_video_without_a_keyframe_in_the_part_is_named(box: str, two_videos: Path, tmp_path: Path) -> None:
    done = upscale_video(two_videos, tmp_path / f"out.{box}", model="nearest", preset="ultrafast", start=21 * FRAME)
    assert done.verified == "verified: 9 frames"
    plan = prepare(two_videos, tmp_path / f"again.{box}", JobOptions().with_changes(model="nearest", start=11 * FRAME))
    assert [fate.what for fate in plan.streams.losses] == ["the first 0.360 s of video 2 (h264)"]
    with pytest.raises(OptionError, match="keyframe"):
        prepare(two_videos, tmp_path / f"again.{box}", JobOptions().with_changes(model="nearest", start=11 * FRAME, keep_all=True))


@pytest.mark.parametrize("box", ["mp4", "mov", "mkv", "nut"])
def test_sound_that_ends_before_the_cut_costs_no_result(box: str, tmp_path: Path) -> None:
    """MP4's muxer leaves its track out."""
    tracks = (Sound(seconds=Fraction(1, 5)), Sound(seconds=Fraction(6, 5), tags={"language": "ger"}))
    source = write_clip(tmp_path / "in.mkv", Clip(times=STEADY, time_base=FRAME, sounds=tracks))
    done = upscale_video(source, tmp_path / f"out.{box}", model="nearest", preset="ultrafast", start=15 * FRAME)
    assert done.verified == f"verified: 15 frames, {1 if box in ('mp4', 'mov') else 2} audio identical"


@pytest.mark.parametrize("number", range(1, 9))
def test_a_start_in_an_avi_takes_the_packets_that_verification_expects(number: int, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.avi", SURVIVES["libmp3lame from avi to mkv"][2])
    done = upscale_video(source, tmp_path / "out.mkv", model="nearest", preset="ultrafast", start=number * FRAME)
    assert done.verified == f"verified: {len(STEADY) - number} frames, 1 audio identical"


def test_sound_half_a_packet_off_is_named_where_a_tick_of_the_source_is_a_packet(tmp_path: Path) -> None:
    source, result = write_clip(tmp_path / "in.avi", SURVIVES["libmp3lame from avi to mkv"][2]), tmp_path / "out.mkv"
    upscale_video(source, result, model="nearest", preset="ultrafast")
    expected = expect(prepare(source, tmp_path / "again.mkv", JobOptions().with_changes(model="nearest")), range(len(STEADY)))
    assert not compare(expected, result).differences
    rewritten(tmp_path / "spoilt.mkv", result, nothing, change=shifted(1, 12))
    assert any("+12.00 ms late" in difference for difference in compare(expected, tmp_path / "spoilt.mkv").differences)


@pytest.mark.parametrize(("codec", "suffix", "box"), [("eac3", "nut", "mp4"), ("mp2", "mp4", "avi")])
def test_sound_that_a_container_would_refuse_at_the_end_is_dropped_by_name(codec: str, suffix: str, box: str, tmp_path: Path) -> None:
    """E-AC-3 that nut calls AC-3, and layer 2 that MP4 calls layer 3, in packets too large for AVI's clock."""
    sound = Sound(codec=codec, layout="stereo", rate=44100, start=FRAME)
    source = write_clip(tmp_path / f"in.{suffix}", Clip(times=STEADY, time_base=FRAME, sounds=(sound,), options={"bf": "0"}))
    plan = prepare(source, tmp_path / f"out.{box}", JobOptions().with_changes(model="nearest"))
    assert [fate.kind for fate in plan.streams.losses if fate.kind == "audio"] == ["audio"]
    assert upscale_video(source, tmp_path / f"out.{box}", model="nearest", preset="ultrafast").verified == f"verified: {len(STEADY)} frames"


@pytest.mark.parametrize("box", ["mp4", "mov", "ts", "mkv"])
@pytest.mark.parametrize("language", ["de", "en-US", "English", "ENG"])
def test_a_language_is_kept_or_named(language: str, box: str, tmp_path: Path) -> None:
    source, dest = tmp_path / "in.mkv", tmp_path / f"out.{box}"
    clip(source, add=sounds(Sound(seconds=Fraction(1, 4), tags={"language": language})))
    assert upscale_video(source, dest, model="nearest", preset="ultrafast").exit_code == 0
    found = probe(dest).streams[1].metadata.get("language", "und")
    codes = {"de": ("deu", "ger"), "en-US": ("eng",), "English": ("und",), "ENG": ("eng",)}
    assert found == language if box == "mkv" else found in codes[language]


@pytest.mark.parametrize("box", ["mp4", "mov", "ts", "mkv", "avi", "nut", "webm"])
def test_the_videos_own_language_is_kept_or_named(box: str, tmp_path: Path) -> None:
    """FFmpeg's muxer writes no language of a video into a transport stream."""
    plain, source, dest = tmp_path / "in.nut", tmp_path / "in.mov", tmp_path / f"out.{box}"
    clip(plain)
    with av.open(str(plain)) as given, av.open(str(source), "w") as made:
        video = made.add_stream_from_template(given.streams.video[0])
        video.metadata["language"] = "eng"
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                made.mux(packet)
    options = {"codec": "libvpx-vp9"} if box == "webm" else {"preset": "ultrafast"}
    plan = prepare(source, dest, JobOptions().with_changes(model="nearest", **options))
    named = any("language" in fate.what for fate in plan.streams.losses)
    assert upscale_video(source, dest, model="nearest", **options).exit_code == 0
    assert named == (probe(dest).streams[0].metadata.get("language", "und") == "und")


TAGGED = {
    "mp4": [{"track": "03"}, {"track": "A1"}, {"disc": "Disc 1"}, {"location": "Paris"}, {"creation_time": "2020"}],
    "mkv": [
        {"MusicBrainz Album Id": "x"},
        {"comment-deu": "x"},
        {"encoding_tool": "x"},
        {"stereo_mode": "mono"},
        {"creation_time": "2020"},
    ],
    "nut": [{"author": "x"}],
}


@pytest.mark.parametrize(("box", "tags"), [(box, tags) for box, several in TAGGED.items() for tags in several])
def test_a_tag_that_a_muxer_rewrites_costs_no_result(box: str, tags: dict[str, str], tmp_path: Path) -> None:
    clip(tmp_path / "in.nut", tags={"title": "T", **tags})
    assert upscale_video(tmp_path / "in.nut", tmp_path / f"out.{box}", model="nearest", preset="ultrafast").exit_code == 0


@pytest.mark.parametrize("change", [{}, {"start": 2 * FRAME}, {"frames": 10}])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "nut"])
def test_chapters_come_through_wherever_they_begin(suffix: str, change: dict[str, Any], tmp_path: Path) -> None:
    marks = [(Fraction(1, 5), Fraction(1), "late"), (Fraction(1, 10), Fraction(1, 5), "first"), (Fraction(0), Fraction(0), "none")]
    source = make_source(tmp_path / "in.nut", pts=range(12), audio=(), chapters=marks[: 2 if change else 3])
    done = upscale_video(source, tmp_path / f"out.{suffix}", model="nearest", preset="ultrafast", **change)
    assert done.verified.endswith(f", {2 if change else 3} chapters identical")


def test_a_chapter_of_no_length_before_a_cut_lies_outside(tmp_path: Path) -> None:
    marks = [(Fraction(0), Fraction(0), "none"), (Fraction(0), Fraction(1), "all")]
    source = make_source(tmp_path / "in.mkv", pts=range(12), audio=(), chapters=marks)
    done = upscale_video(source, tmp_path / "out.mkv", model="nearest", preset="ultrafast", start=2 * FRAME)
    assert done.verified == "verified: 10 frames, 1 chapter identical"


MUTANTS: dict[str, Change] = {
    "one lost": lambda chapters: chapters[1:],
    "one late": lambda chapters: [replace(chapters[0], start=chapters[0].start + Fraction(1, 10)), *chapters[1:]],
    "lost and late": lambda chapters: [replace(chapters[1], start=chapters[1].start + Fraction(1, 10))],
    "one renamed": lambda chapters: [replace(chapters[0], metadata={"title": "x"}), *chapters[1:]],
}


@pytest.mark.parametrize("name", list(MUTANTS))
@pytest.mark.parametrize("box", ["mkv", "mp4"])
def test_chapters_are_not_counted_by_what_writes_them(name: str, box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks that code is given the mutant."""
    import a2n_video.job.verify as verifying

    marks = [(Fraction(0), Fraction(1, 5), "one"), (Fraction(1, 5), Fraction(2, 5), "two")]
    source = make_source(tmp_path / "in.mkv", pts=range(12), audio=(), chapters=marks)
    honest = remux.shifted_chapters
    for module in (remux, verifying):
        # The rehearsal of the plan has none.
        monkeypatch.setattr(module, "shifted_chapters", lambda final: MUTANTS[name](c) if (c := honest(final)) else c, raising=False)
    with pytest.raises(VerificationError, match="chapter"):
        upscale_video(source, tmp_path / f"out.{box}", model="nearest", preset="ultrafast")


@pytest.mark.parametrize("left", [True, False])
def test_it_says_that_a_result_was_left_only_where_it_was(left: bool, job: tuple[Expected, Path]) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(replace(job[0], encoded=9, left=left), job[1])
    assert ("left there" in str(caught.value)) == left


@pytest.mark.parametrize(("changes", "left"), [({}, True), ({"resume": False}, False)])
def test_a_job_that_keeps_nothing_leaves_nothing(
    changes: dict[str, Any], left: bool, job: tuple[Expected, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("a2n_video.job.verify.compare", lambda *_: VerifyReport(frames=8, counts={}, differences=("it is not",)))
    with pytest.raises(VerificationError) as caught:
        upscale_video(job[0].final.info.path, tmp_path / "out.nut", model="nearest", preset="ultrafast", **changes)
    assert ("left there" in str(caught.value)) == left == bool(list(tmp_path.rglob("result.nut")))
    assert left or not list(tmp_path.iterdir())


def test_a_failed_job_into_a_pipe_leaves_nothing(
    job: tuple[Expected, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("a2n_video.job.verify.compare", lambda *_: VerifyReport(frames=8, counts={}, differences=("it is not",)))
    with pytest.raises(VerificationError) as caught:
        upscale_video(job[0].final.info.path, "-", model="nearest", preset="ultrafast", pipe_format="nut")
    assert "left there" not in str(caught.value) and not list(tmp_path.rglob("*nut*")) and not capsysbinary.readouterr().out


def test_what_is_left_follows_from_the_options(job: tuple[Expected, Path], tmp_path: Path) -> None:
    source = job[0].final.info.path
    for changes, left in (({}, True), ({"resume": False}, False), ({"pipe_format": "nut"}, False)):
        plan = prepare(source, tmp_path / "out.nut", JobOptions().with_changes(model="nearest", **changes))
        assert expect(plan, job[0].times).left == left


@pytest.mark.parametrize("box", ["mov", "avi"])
def test_raw_sound_that_ends_early_is_found(box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rule by which gaps are filled comes to: it is one for what is written and for what is due."""
    whole = write_clip(tmp_path / "whole.mkv", Clip(times=STEADY, sounds=(Sound(codec="pcm_s16le"),)))
    source = with_gap(whole, tmp_path / "in.mkv", (Fraction(3, 10), Fraction(7, 10)))
    monkeypatch.setattr("a2n_video.media.samples.JITTER", Fraction(9))
    with pytest.raises(VerificationError, match=r"audio 1 \(pcm_s16le\): ends -3.* late"):
        upscale_video(source, tmp_path / f"out.{box}", model="nearest", preset="ultrafast")


def test_payloads_are_compared_as_their_codec_sees_them() -> None:
    frame = bytes(range(40))
    length = len(frame) + 7
    adts = bytes([0xFF, 0xF1, 0x50, 0x80 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC]) + frame
    assert essence("aac", memoryview(adts)) == frame == essence("aac", memoryview(frame))
    slices = [b"\x65abc", b"\x41defg"]
    annex_b = b"".join(b"\0\0\0\1" + unit for unit in [b"\x67sps", b"\x68pps", *slices])
    prefixed = b"".join(len(unit).to_bytes(4) + unit for unit in slices)
    assert essence("h264", memoryview(annex_b)) == essence("h264", memoryview(prefixed))
    said, other, slice_ = b"\x4e\x01said", b"\x4e\x01other", b"\x28\x01hij"
    repeated = b"".join(b"\0\0\0\1" + unit for unit in [b"\x40\x01vps", said, other, slice_])
    prefixed = b"".join(len(unit).to_bytes(4) + unit for unit in [other, slice_])
    header = b"\x01head\x00\x06" + said
    assert essence("hevc", memoryview(repeated), header) == essence("hevc", memoryview(prefixed), header)
    assert essence("hevc", memoryview(repeated)) != essence("hevc", memoryview(prefixed)), "what the header does not say is compared"
    assert essence("mov_text", memoryview(b"\0\0")) is None
    assert TICK * 90000 == 1


@pytest.mark.parametrize(
    "changes", [{"start": Fraction(1, 5)}, {"start": Fraction(1, 5), "end": Fraction(2, 5)}, {"frames": 3}, {"end": Fraction(3, 5)}]
)
@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_a_part_of_sound_in_long_packets_is_whole(codec: str, changes: dict[str, Any], tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", "wavpack", (SAMPLES >> 16).astype(np.int16), each=24_000)
    done = upscale_video(source, tmp_path / "out.mp4", model="nearest", preset="ultrafast", reencode_audio=codec, **changes)
    assert done.verified.endswith("1 audio identical")


@pytest.mark.parametrize(("codec", "rate"), [("aac", 8000), ("mp2", 48000), ("mp3", 8000)])
def test_sound_with_much_padding_and_with_another_mark(codec: str, rate: int, tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", "wavpack", (SAMPLES[:rate] >> 18).astype(np.int16), rate=rate, each=4000)
    done = upscale_video(source, tmp_path / "out.mp4", model="nearest", preset="ultrafast", reencode_audio=codec)
    assert done.verified.endswith("1 audio identical")
