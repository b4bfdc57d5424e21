"""The plan of fates, and the table it comes from held against FFmpeg's muxers by muxing."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import av
import pytest

from a2n_video.errors import OptionError
from a2n_video.io.inspect import essence
from a2n_video.io.mux.copying import stream_like
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.containers import DISPOSITIONS, HOLDS, MOV_LANGUAGES, MUXER_OPTIONS, SAME_LANGUAGE, Container, mov_language
from a2n_video.media.info import Chapter, StreamInfo, VideoInfo
from a2n_video.media.planes import PlaneFormat
from a2n_video.media.streams import container_of, format_plan, plan_streams
from a2n_video.media.tags import kept_tags, same_language
from a2n_video.options import Fidelity
from tests.clips import MUXERS, Sound, add_sound, sound_packets

TB = Fraction(1, 1000)
CONTAINERS: tuple[Container, ...] = ("mkv", "mp4", "mov", "webm", "ts", "m2ts", "avi", "nut")


def stream(index: int, kind: Any, codec: str, **changes: Any) -> StreamInfo:
    return StreamInfo(index=index, kind=kind, codec=codec, time_base=TB, **changes)


def source(*others: StreamInfo, **changes: Any) -> VideoInfo:
    values: dict[str, Any] = {
        "path": Path("in.mkv"),
        "container": "matroska,webm",
        "size_bytes": 1,
        "duration": None,
        "metadata": {},
        "chapters": (),
        "streams": (stream(0, "video", "h264"), *others),
        "video_index": 0,
        "pix_fmt": "yuv420p",
        "planes": PlaneFormat(width=64, height=48, family="yuv", log2_chroma_w=1, log2_chroma_h=1),
        "color": ColorSpec(),
        "frame_rate": Fraction(25),
        "time_base": TB,
    }
    return VideoInfo(**values | changes)


def fates(info: VideoInfo, container: Container, **options: Any) -> list[tuple[str, str | None]]:
    plan = plan_streams(info, container, Fidelity(**options))
    return [(fate.fate, fate.to) for fate in plan.fates[1:]]


def test_every_stream_has_a_fate_and_every_loss_a_reason() -> None:
    others = [
        stream(1, "audio", "truehd"),
        stream(2, "subtitle", "hdmv_pgs_subtitle"),
        stream(3, "attachment", "ttf"),
        stream(4, "data", "klv"),
    ]
    chapter = Chapter(id=1, start=Fraction(0), end=Fraction(1))
    info = source(*others, chapters=(chapter,), metadata={"FOO": "bar"}, dynamic_hdr=("HDR10+",), alpha=True, display_matrix=(1,) * 9)
    for container in CONTAINERS:
        plan = plan_streams(info, container, Fidelity())
        assert [fate.index for fate in plan.fates[:5]] == [0, 1, 2, 3, 4]
        assert all(fate.reason for fate in plan.losses)
    lost = {fate.kind for fate in plan_streams(info, "avi", Fidelity()).losses}
    assert lost == {"audio", "subtitle", "attachment", "data", "chapters", "tags", "rotation", "hdr"}


def test_audio_is_converted_only_where_the_word_is_said() -> None:
    info = source(stream(1, "audio", "aac"), stream(2, "audio", "opus"))
    assert fates(info, "webm") == [("dropped", None), ("copied", None)]
    assert fates(info, "webm", reencode_audio="opus") == [("converted", "opus"), ("copied", None)]
    with pytest.raises(OptionError, match="webm does not hold aac"):
        plan_streams(info, "webm", Fidelity(reencode_audio="aac"))
    with pytest.raises(OptionError, match="known are"):
        plan_streams(info, "webm", Fidelity(reencode_audio="sox"))


def test_keep_all_names_every_loss() -> None:
    info = source(stream(1, "audio", "aac", metadata={"language": "ger"}), stream(2, "attachment", "ttf", metadata={"filename": "A.ttf"}))
    with pytest.raises(OptionError, match=r"audio 1 \(aac, ger\).*A\.ttf"):
        plan_streams(info, "webm", Fidelity(keep_all=True))
    assert not plan_streams(info, "mkv", Fidelity(keep_all=True)).losses


def test_a_language_without_a_code_is_a_loss_and_so_is_a_region() -> None:
    info = source(*(stream(n, "audio", "aac", metadata={"language": word}) for n, word in enumerate(("de", "en-US", "English"), 1)))
    for container in ("mp4", "ts"):
        fates = [fate for fate in plan_streams(info, container, Fidelity()).fates if fate.kind == "tags"]
        assert [(fate.fate, fate.what.split(" of audio")[0], "becomes eng" in fate.reason) for fate in fates] == [
            ("dropped", "region of language en-US", True),
            ("dropped", "tags language English", False),
        ]
        with pytest.raises(OptionError, match=r"region of language en-US.*language English"):
            plan_streams(info, container, Fidelity(keep_all=True))
    assert not plan_streams(info, "mkv", Fidelity(keep_all=True)).losses


def test_chapters_that_begin_late_are_told_of_where_one_without_a_name_comes_first() -> None:
    def reason(start: int, container: Container) -> str:
        info = source(chapters=(Chapter(id=1, start=Fraction(start), end=Fraction(9)),))
        return next(fate.reason for fate in plan_streams(info, container, Fidelity(keep_all=True)).fates if fate.kind == "chapters")

    assert "one without a name" in reason(1, "mp4") and "one without a name" in reason(1, "mov")
    assert not reason(0, "mp4") and not reason(1, "mkv")


def test_an_empty_track_is_no_loss() -> None:
    plan = plan_streams(source(stream(1, "audio", "aac")), "mp4", Fidelity(keep_all=True), frozenset({1}))
    assert plan.fates[1].fate == "dropped" and "no packets" in plan.fates[1].reason and not plan.losses


def test_a_cover_is_no_video() -> None:
    cover = stream(1, "video", "mjpeg", disposition=0x400)
    assert fates(source(cover), "mp4") == [("copied", None)]
    assert fates(source(cover), "mov") == [("dropped", None)]


def test_timecode_and_chapter_tracks_become_what_they_say() -> None:
    tracks = stream(1, "data", "unknown", metadata={"timecode": "01:00:00:00"}), stream(2, "data", "bin_data")
    info = source(*tracks, chapters=(Chapter(id=1, start=Fraction(0), end=Fraction(1)),), container="mov,mp4,m4a,3gp,3g2,mj2")
    assert fates(info, "mkv")[:2] == [("converted", "timecode tag"), ("converted", "chapters")]
    assert fates(info, "ts")[:2] == [("dropped", None), ("dropped", None)]


@pytest.mark.parametrize(
    ("codec", "container", "reason"),
    [
        ("eia_608", "mkv", "mkv does not hold eia_608"),
        ("dvb_teletext", "mp4", "mp4 does not hold dvb_teletext"),
        ("hdmv_pgs_subtitle", "mov", "mov does not hold hdmv_pgs_subtitle (pictures, which cannot become text)"),
    ],
)
def test_only_pictures_are_called_pictures(codec: str, container: Container, reason: str) -> None:
    (fate,) = plan_streams(source(stream(1, "subtitle", codec)), container, Fidelity()).losses
    assert fate.reason == reason


def test_quicktime_keeps_a_track_of_closed_captions() -> None:
    assert fates(source(stream(1, "subtitle", "eia_608")), "mov", keep_all=True) == [("copied", None)]


def test_the_plan_reads() -> None:
    info = source(stream(1, "audio", "aac", metadata={"title": "Main"}), stream(2, "subtitle", "subrip"), metadata={"com.maker": "x"})
    plan = plan_streams(info, "mp4", Fidelity())
    assert plan.muxer_options == (("movflags", "+write_colr+use_metadata_tags"),)
    text = format_plan(plan)
    assert "audio 1 (aac, 'Main')" in text and "to mov_text: mp4 does not hold subrip" in text


def test_tags_of_the_old_file_stay_behind_and_names_fit_the_new_one() -> None:
    time = "2021-03-04T05:06:07.000000Z"
    tags = {
        "BPS-eng": "9",
        "ENCODER": "x",
        "name": "A",
        "language": "fre",
        "handler_name": "SoundHandler",
        "creation_time": f"{time};{time}",
    }
    assert kept_tags(tags, "mov", of_stream=True) == {"title": "A", "language": "fra", "creation_time": time}
    assert kept_tags({"language": "tlh"}, "mov", of_stream=True) == {"language": "und"}
    assert kept_tags({"genre": "G", "FOO": "bar"}, "avi", of_stream=False) == {"genre": "G"}


@pytest.mark.parametrize(("name", "container"), [("a.MKV", "mkv"), ("b.m4v", "mp4"), ("c.M2TS", "m2ts")])
def test_a_suffix_in_any_case_names_its_container(name: str, container: str) -> None:
    assert container_of(PurePath(name)) == container


@pytest.mark.parametrize("name", ["a.xyz", "noext", ".mkv"])
def test_an_unknown_suffix_lists_the_known_ones(name: str) -> None:
    with pytest.raises(OptionError, match=r"\.mkv"):
        container_of(PurePath(name))


def test_languages_of_two_codes_are_one() -> None:
    assert same_language("ger", "deu") and same_language(None, "und") and not same_language("ger", "fre")
    assert all(SAME_LANGUAGE[SAME_LANGUAGE[code]] == code for code in SAME_LANGUAGE)


# What follows holds the table against the muxers.

ENCODERS = {
    "aac": "aac",
    "mp3": "libmp3lame",
    "ac3": "ac3",
    "eac3": "eac3",
    "mp2": "mp2",
    "opus": "libopus",
    "vorbis": "vorbis",
    "flac": "flac",
    "alac": "alac",
    "pcm_s16le": "pcm_s16le",
    "pcm_s24le": "pcm_s24le",
    "pcm_f32le": "pcm_f32le",
    "pcm_u8": "pcm_u8",
    "pcm_s16be": "pcm_s16be",
    "pcm_mulaw": "pcm_mulaw",
    "wavpack": "wavpack",
    "tta": "tta",
    "adpcm_ima_wav": "adpcm_ima_wav",
    "adpcm_ms": "adpcm_ms",
    "adpcm_yamaha": "adpcm_yamaha",
    "adpcm_swf": "adpcm_swf",
    "adpcm_ima_qt": "adpcm_ima_qt",
    "adpcm_g722": "g722",
    "adpcm_g726": "g726",
    "nellymoser": "nellymoser",
    "ra_144": "real_144",
    "wmav1": "wmav1",
    "wmav2": "wmav2",
    "pcm_alaw": "pcm_alaw",
    "pcm_s8": "pcm_s8",
    "pcm_s24be": "pcm_s24be",
    "pcm_s32be": "pcm_s32be",
    "pcm_f32be": "pcm_f32be",
    "pcm_f64be": "pcm_f64be",
    "aac_latm": "aac",
    "pcm_bluray": "pcm_bluray",
}
# Where a codec is made first, if not in Matroska, whose muxer PyAV does not let make some; and what is not 48 kHz in stereo.
MADE_IN = {
    **dict.fromkeys(("pcm_mulaw", "pcm_alaw", "pcm_f32be", "pcm_f64be", "adpcm_ima_wav", "adpcm_yamaha", "adpcm_swf"), "nut"),
    **dict.fromkeys(("adpcm_ms", "adpcm_g722", "adpcm_g726"), "wav"),
    **{
        "pcm_bluray": "mpegts",
        "adpcm_ima_qt": "mov",
        "pcm_s8": "mov",
        "nellymoser": "mov",
        "wmav1": "asf",
        "wmav2": "asf",
        "aac_latm": "mpegts",
    },
}
RATES = {"adpcm_swf": 44100, "adpcm_g722": 16000, "adpcm_g726": 8000, "nellymoser": 8000, "ra_144": 8000}
BIT_RATES = {"wmav1": 128000, "wmav2": 128000}


def wave(tag: int, rate: int, block: int, extra: bytes) -> bytes:
    """A WAV file of noise in blocks of a fiftieth of a second."""
    header = struct.pack("<HHIIHHH", tag, 1, rate, 50 * block, block, 0, len(extra)) + extra
    chunks = [(b"fmt ", header), (b"fact", (rate).to_bytes(4, "little")), (b"data", random.Random(1).randbytes(20 * block))]
    body = b"WAVE" + b"".join(name + len(data).to_bytes(4, "little") + data for name, data in chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def noise(head: int, size: int) -> bytes:
    """Twenty packets of noise, each with its codec's first byte."""
    return b"".join(bytes([head]) + random.Random(n).randbytes(size - 1) for n in range(20))


# Files of codecs that PyAV has no encoder for. They hold noise: what some of it means nobody could say, what comes back can be compared.
WRITTEN = {
    "amr_nb": ("amr", b"#!AMR\n" + noise(0x3C, 32)),
    "amr_wb": ("amr", b"#!AMR-WB\n" + noise(0x04, 18)),
    "gsm": ("gsm", noise(0xD5, 33)),
    "gsm_ms": ("wav", wave(0x31, 8000, 65, (320).to_bytes(2, "little"))),
    "wmapro": ("wav", wave(0x162, 48000, 400, bytes([16, 0, 3]) + bytes(11) + bytes([0xE0, 0, 0, 0]))),
    "wmavoice": ("wav", wave(0x0A, 8000, 100, bytes(46))),
    "wmalossless": ("wav", wave(0x163, 44100, 400, bytes([16, 0, 3]) + bytes(15))),
}


def encoded(name: str) -> io.BytesIO:
    """A file with half a second of sound of a codec."""
    if name in WRITTEN:
        return io.BytesIO(WRITTEN[name][1])
    sound = Sound(
        codec=ENCODERS[name],
        seconds=Fraction(1, 2),
        start=Fraction(1, 5),
        layout="mono" if name in RATES else "stereo",
        rate=RATES.get(name, 48000),
    )
    options = {"aac_latm": {"mpegts_flags": "latm"}, "pcm_bluray": {"mpegts_m2ts_mode": "1"}}.get(name, {})
    file = io.BytesIO()
    with av.open(file, "w", format=MADE_IN.get(name, "matroska"), options=options) as output:
        stream = add_sound(output, sound)
        if name in BIT_RATES:
            stream.bit_rate = BIT_RATES[name]
        for packet in sound_packets(sound, stream):
            output.mux(packet)
    return io.BytesIO(file.getvalue())


@pytest.fixture(scope="module")
def sounds() -> dict[str, tuple[Any, list[tuple[bytes, int, int, Fraction]]]]:
    """Packets of each codec with the stream they came from, by way of a container that takes the codec."""
    made = {}
    for name in CODECS:
        source = av.open(encoded(name), format=WRITTEN[name][0] if name in WRITTEN else None)
        made[name] = source, [(bytes(p), p.pts, p.duration, Fraction(p.time_base)) for p in source.demux() if p.size]
    return made


CODECS = (*ENCODERS, *WRITTEN)


def remuxed(container: str, template: Any, packets: list[tuple[bytes, int, int, Fraction]]) -> Iterator[tuple[str, bytes, Fraction]]:
    """(codec, payload, seconds) as the container gives them back."""
    with av.open(written(container, template, packets)) as result:
        stream = result.streams[0]
        codec = stream.codec_context.codec.canonical_name if stream.type == "audio" else stream.type
        for packet in result.demux(stream):
            if packet.size:
                yield codec, bytes(packet), (packet.pts or 0) * Fraction(packet.time_base)


def written(container: str, template: Any, packets: list[tuple[bytes, int, int, Fraction]]) -> io.BytesIO:
    """A file with packets of a copied stream."""
    file, told = io.BytesIO(), {"avoid_negative_ts": "disabled", **MUXER_OPTIONS.get(container, {})}  # type: ignore[call-overload]
    with av.open(file, "w", format=MUXERS.get(container, container), options=told) as output:
        stream = stream_like(template, output)
        if stream.codec_context.layout.name.endswith("channels"):
            stream.codec_context.layout = "stereo"
        for data, pts, duration, base in packets:
            packet = av.Packet(data)
            packet.pts = packet.dts = pts
            packet.duration, packet.is_keyframe = duration or 0, True
            packet.time_base, packet.stream = base, stream
            output.mux(packet)
    return io.BytesIO(file.getvalue())


# Where the muxer takes a codec and gives it back, and the table refuses nonetheless.
REFUSED_FOR_A_REASON = {
    ("avi", "vorbis"): "its times come back wrong",
    ("avi", "eac3"): "its times come back wrong",
    ("avi", "flac"): "its times come back wrong where packets are not alike",
    **{
        ("avi", codec): "its times come back wrong"
        for codec in (
            *("aac_latm", "adpcm_g722", "adpcm_g726", "adpcm_swf", "adpcm_yamaha", "amr_nb", "amr_wb"),
            *("wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice"),
        )
    },
    **{
        ("nut", codec): "no decoder begins without the size of its blocks, which nut does not keep"
        for codec in ("adpcm_g726", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice")
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_table_of_audio_is_what_the_muxers_do(codec: str, container: Container, sounds: Any) -> None:
    opened, packets = sounds[codec]
    try:
        back = list(remuxed(container, opened.streams.audio[0], packets))
        # MP4 has one code for layers 2 and 3 of MPEG-1 audio: the bytes are the same, and one decoder reads both.
        named = bool(back) and (back[0][0] == codec or {back[0][0], codec} == {"mp2", "mp3"})
        joined = [
            b"".join(essence(codec, memoryview(data)) or b"" for data in side) for side in ([p[0] for p in packets], [b[1] for b in back])
        ]
        held = named and joined[0] == joined[1]
    except (av.FFmpegError, ValueError):
        held = False
    if (container, codec) in REFUSED_FOR_A_REASON:
        assert codec not in HOLDS[container].audio
    else:
        assert held == (codec in HOLDS[container].audio)


@pytest.mark.parametrize("codec", ["aac_latm", "adpcm_g722", "adpcm_g726", "adpcm_ms", "amr_wb", "gsm_ms", "pcm_alaw", "wmav1", "wmav2"])
def test_what_matroska_knows_by_number_sounds_the_same(codec: str, sounds: Any) -> None:
    opened, packets = sounds[codec]
    before = hashlib.sha1()
    for packet in (*(av.Packet(data) for data, *_ in packets), None):
        for frame in opened.streams.audio[0].codec_context.decode(packet):
            before.update(frame.to_ndarray().tobytes())
    after = hashlib.sha1()
    with av.open(written("mkv", opened.streams.audio[0], packets)) as result:
        for frame in result.decode(audio=0):
            after.update(frame.to_ndarray().tobytes())
    assert before.digest() == after.digest() != hashlib.sha1().digest()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("mark", [name for name in DISPOSITIONS if name not in ("default", "captions", "descriptions", "metadata")])
def test_the_table_of_marks_is_what_the_muxers_do(mark: str, container: Container, sounds: Any) -> None:
    codec = "opus" if container == "webm" else "mp3"
    opened, packets = sounds[codec]
    file = io.BytesIO()
    with av.open(file, "w", format=MUXERS.get(container, container), options=MUXER_OPTIONS.get(container, {})) as output:
        stream = output.add_stream_from_template(opened.streams.audio[0], opaque=True)
        stream.disposition = DISPOSITIONS[mark]
        for data, pts, duration, base in packets:
            packet = av.Packet(data)
            packet.pts = packet.dts = pts
            packet.duration, packet.is_keyframe = duration or 0, True
            packet.time_base, packet.stream = base, stream
            output.mux(packet)
    with av.open(io.BytesIO(file.getvalue())) as result:
        found = int(result.streams.audio[0].disposition) & DISPOSITIONS[mark]
    assert bool(found) == (mark in HOLDS[container].dispositions)


@pytest.mark.parametrize("language", ["fre", "fra", "deu", "ger", "jpn", "cze", "ces", "tlh", "und", "nld"])
def test_quicktime_languages_come_back(language: str, sounds: Any) -> None:
    opened, packets = sounds["aac"]
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as output:
        stream = output.add_stream_from_template(opened.streams.audio[0], opaque=True)
        stream.metadata["language"] = mov_language(language) or "und"
        for data, pts, duration, base in packets:
            packet = av.Packet(data)
            packet.pts = packet.dts = pts
            packet.duration, packet.is_keyframe = duration or 0, True
            packet.time_base, packet.stream = base, stream
            output.mux(packet)
    with av.open(io.BytesIO(file.getvalue())) as result:
        found = result.streams.audio[0].metadata.get("language")
    assert same_language(found, language) == (mov_language(language) is not None)
    assert len(MOV_LANGUAGES) > 80


def test_more_fates_can_be_added() -> None:
    plan = plan_streams(source(), "mkv", Fidelity())
    more = plan.plus(replace(plan.fates[0], what="depth", kind="depth", fate="dropped", index=None, reason="8 bit"))
    assert [fate.what for fate in more.losses] == ["depth"]
    with pytest.raises(OptionError, match="depth"):
        more.refuse_losses()


def test_another_video_without_a_size_is_dropped_with_the_reason() -> None:
    damaged, whole = stream(1, "video", "vp9"), stream(2, "video", "vp9", width=64, height=48)
    assert fates(source(damaged, whole), "mkv") == [("dropped", None), ("copied", None)]
    (lost,) = plan_streams(source(damaged), "mkv", Fidelity()).losses
    assert lost.reason == "its header gives no picture size"
