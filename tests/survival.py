"""What survives in which container: the list that the preservation suite runs through and the README's table is made from.

`python -m tests.survival` prints the table, `--write` puts it into README.md between its marks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tests.clips import MUXERS, SIZE, Sound, add_sound, picture, sound_packets

README: Final = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- survival: made by python -m tests.survival --write -->", "<!-- end of survival -->"
CONTAINERS: Final = ("mkv", "mp4", "mov", "webm", "ts", "avi", "nut")

KEPT, LOST, PART = "kept", "named, dropped", "named, dropped in part"
_ALL = dict.fromkeys(CONTAINERS, KEPT)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing a source can hold: how a source with it is made, and its fate in each container.

    `checks` names what the suite looks at: "audio" and the like are packets of that kind, others have a check of that name.
    A fate is KEPT, LOST, PART (some of it is lost), or the codec it is converted to. `lost_as` is a word of the plan's line where it is
    lost.
    """

    label: str
    make: Callable[[Path], None]
    fates: dict[str, str]
    checks: str
    suffix: str = "mkv"
    lost_as: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    row: bool = True  # whether it has a row in the table


def only(**fates: str) -> dict[str, str]:
    """KEPT or converted where named, lost elsewhere."""
    return {container: fates.get(container, LOST) for container in CONTAINERS}


def all_but(**fates: str) -> dict[str, str]:
    """KEPT but where named."""
    return _ALL | fates


def clip(
    path: Path,
    *,
    add: Callable[[Any], Iterable[Any]] | None = None,
    video: Callable[[Any], None] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    chapters: bool = False,
    frames: int = 6,
    muxer: dict[str, str] | None = None,
) -> None:
    """Six small frames, and whatever `add` puts beside them: it adds streams to the output and gives their packets."""
    with av.open(str(path), "w", format=MUXERS.get(path.suffix[1:], path.suffix[1:]), options=muxer or {}) as output:
        stream: Any = output.add_stream(codec, rate=25, options={"bf": "0", "preset": "ultrafast", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        if video is not None:
            video(stream)
        output.metadata.update(tags or {})
        others = list(add(output)) if add else []
        if chapters:
            marks = [(0, 80, "One"), (80, 160, "Zwei: Ü"), (160, 240, "Three")]
            output.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": t}}
                    for i, (a, b, t) in enumerate(marks, 1)
                ]
            )
        packets = [*picture_packets(stream, frames), *(packet for make in others for packet in make())]
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * Fraction(packet.time_base)):
            output.mux(packet)


def picture_packets(stream: Any, frames: int) -> list[Any]:
    """Numbered pictures, 40 ms each, encoded."""
    packets = []
    for number in range(frames):
        frame = picture(number, (stream.width, stream.height)).reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number * 40, Fraction(1, 1000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def sounds(*tracks: Sound) -> Callable[[Any], list[Callable[[], list[Any]]]]:
    def add(output: Any) -> list[Callable[[], list[Any]]]:
        made = [(track, add_sound(output, track)) for track in tracks]
        return [lambda track=track, stream=stream: sound_packets(track, stream) for track, stream in made]  # type: ignore[misc]

    return add


CUES = ((40, 120, "Hello {\\i1}you{\\i0}"), (130, 200, "Two\\Nlines"))
HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,20\n\n"
    b"[Events]\nFormat: Layer, Text\n"
)


def cue_packets(stream: Any, encoded: Callable[[int, int, str], Any]) -> list[Any]:
    """A packet for each cue, at its time."""
    made = []
    for start, end, text in CUES:
        packet = encoded(start, end, text)
        packet.pts = packet.dts = start
        packet.duration, packet.time_base, packet.stream = end - start, Fraction(1, 1000), stream
        made.append(packet)
    return made


def text_subtitles(codec: str) -> Callable[[Any], list[Callable[[], list[Any]]]]:
    """Two cues, German, with a title."""

    def add(output: Any) -> list[Callable[[], list[Any]]]:
        from av.subtitles.subtitle import SubtitleSet

        stream = output.add_stream(codec, time_base=Fraction(1, 1000))
        stream.codec_context.subtitle_header = HEADER
        stream.metadata.update({"language": "ger", "title": "Untertitel"})

        def encoded(start: int, end: int, text: str) -> Any:
            line = f"0,0,Default,,0,0,0,,{text}".encode()
            return stream.codec_context.encode_subtitle(SubtitleSet.create(line, 0, end - start, start))

        return [lambda: cue_packets(stream, encoded)]

    return add


def picture_subtitles(codec: str) -> Callable[[Any], list[Callable[[], list[Any]]]]:
    """Packets of a bitmap subtitle: what is in them is the player's affair, and must come through byte for byte."""

    def add(output: Any) -> list[Callable[[], list[Any]]]:
        stream = output.add_mux_stream(codec, time_base=Fraction(1, 1000))
        stream.metadata.update({"language": "eng"})
        return [lambda: cue_packets(stream, lambda *_: av.Packet(bytes([0x16, 0, 19, *range(16)]) * 3))]

    return add


FONTS = {"Sans.ttf": ("font/ttf", bytes(range(256)) * 9), "Serif bold.otf": ("font/otf", b"OTTO" + bytes(900))}


def fonts(output: Any) -> list[Any]:
    for name, (kind, data) in FONTS.items():
        output.add_attachment(name, kind, data)
    return []


def image(codec: str) -> bytes:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.time_base = 32, 24, Fraction(1, 25)
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 90, np.uint8), format="rgb24").reformat(format=context.pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def cover(codec: str) -> Callable[[Path], None]:
    """A cover as Matroska has it: an image attached by name."""
    suffix = "jpg" if codec == "mjpeg" else "png"

    def add(output: Any) -> list[Any]:
        output.add_attachment(f"cover.{suffix}", f"image/{'jpeg' if suffix == 'jpg' else 'png'}", image(codec))
        return []

    return lambda path: clip(path, add=add)


def second_video(output: Any) -> list[Callable[[], list[Any]]]:
    """A smaller second picture, as a camera's preview or another angle."""
    stream: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    return [lambda: picture_packets(stream, 3)]


def rotated(matrix: tuple[int, int, int, int]) -> Callable[[Path], None]:
    a, b, c, d = (value << 16 for value in matrix)
    return lambda path: clip(path, video=lambda stream: stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30)))


def set_sar(stream: Any) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(32, 27)


def colours(transfer: int) -> Callable[[Any], None]:
    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1

    return tag


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HDR10 = {"x265-params": f"log-level=error:pools=1:hdr10=1:master-display={MASTERING}:max-cll=1000,400"}
TRACKS = (
    Sound(codec="aac", tags={"language": "ger", "title": "Deutsch"}, disposition=1, seconds=Fraction(1, 4)),
    Sound(codec="ac3", tags={"language": "eng", "title": "Commentary"}, seconds=Fraction(1, 4)),
    Sound(codec="mp3", tags={"language": "jpn"}, start=Fraction(1, 10), seconds=Fraction(1, 4)),
)
TAGS = {"title": "A title", "artist": "Somebody", "date": "2021", "comment": "Grüße", "creation_time": "2021-03-04T05:06:07.000000Z"}


def audio(label: str, codec: str, fates: dict[str, str], encoder: str | None = None) -> Item:
    track = Sound(codec=encoder or codec, seconds=Fraction(1, 4), layout="stereo")
    return Item(label=label, make=lambda path: clip(path, add=sounds(track)), fates=fates, checks="audio", lost_as=codec)


def foreign(encoder: str) -> Callable[[Path], None]:
    """A source with audio that PyAV has no encoder for: made by an ffmpeg binary, where there is one."""

    def make(path: Path) -> None:
        from a2n_video.io.ffmpeg_writer import binary

        silent = path.with_name(f"silent-{path.name}")
        clip(silent)
        sound = ["-f", "lavfi", "-i", "sine=duration=0.25:sample_rate=48000", "-ac", "2", "-c:a", encoder, "-strict", "-2"]
        command = [binary(), "-v", "error", "-i", str(silent), *sound, "-c:v", "copy", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return make


TURNS = {
    "0": (1, 0, 0, 1),
    "90": (0, -1, 1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored, 90": (0, 1, 1, 0),
    "mirrored, 180": (1, 0, 0, -1),
    "mirrored, 270": (0, -1, -1, 0),
}

_TURNED = all_but(ts=LOST, avi=LOST, nut=LOST)

ITEMS: Final[dict[str, Item]] = {
    "subrip": Item(
        label="SubRip subtitles",
        make=lambda path: clip(path, add=text_subtitles("srt")),
        fates=only(mkv=KEPT, mp4="mov_text", mov="mov_text", webm="webvtt"),
        checks="subtitle",
        lost_as="subtitle 1",
    ),
    "ass": Item(
        label="ASS subtitles",
        make=lambda path: clip(path, add=text_subtitles("ass")),
        fates=only(mkv=KEPT, mp4="mov_text", mov="mov_text", webm="webvtt"),
        checks="subtitle",
        lost_as="subtitle 1",
    ),
    "webvtt": Item(
        label="WebVTT subtitles",
        make=lambda path: clip(path, add=text_subtitles("webvtt")),
        fates=only(mkv=KEPT, mp4="mov_text", mov="mov_text", webm=KEPT),
        checks="subtitle",
        lost_as="subtitle 1",
    ),
    "mov_text": Item(
        label="MP4 timed text",
        make=lambda path: clip(path, add=text_subtitles("mov_text")),
        suffix="mp4",
        fates=only(mkv="subrip", mp4=KEPT, mov=KEPT, webm="webvtt"),
        checks="subtitle",
        lost_as="subtitle 1",
    ),
    "pgs": Item(
        label="Blu-ray (PGS) subtitles",
        make=lambda path: clip(path, add=picture_subtitles("hdmv_pgs_subtitle")),
        fates=only(mkv=KEPT),
        checks="subtitle",
        lost_as="hdmv_pgs_subtitle",
    ),
    "dvdsub": Item(
        label="DVD (VobSub) subtitles",
        make=lambda path: clip(path, add=picture_subtitles("dvd_subtitle")),
        fates=only(mkv=KEPT, nut=KEPT),
        checks="subtitle",
        lost_as="dvd_subtitle",
    ),
    "fonts": Item(
        label="Fonts and other attachments",
        make=lambda path: clip(path, add=fonts),
        fates=only(mkv=KEPT),
        checks="fonts",
        lost_as="Sans.ttf",
    ),
    "tracks": Item(
        label="Three audio tracks: languages, titles, delays",
        make=lambda path: clip(path, add=sounds(*TRACKS)),
        fates=only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=PART, avi=PART, nut=KEPT),
        checks="tracks",
        lost_as="audio 1",
    ),
    "aac": audio("AAC", "aac", only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT, avi=PART, nut=KEPT)),
    "mp3": audio("MP3", "mp3", only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT, avi=PART, nut=KEPT)),
    "ac3": audio("AC-3", "ac3", only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT, avi=PART, nut=KEPT)),
    "eac3": audio("E-AC-3", "eac3", only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT)),
    "opus": audio("Opus", "opus", only(mkv=KEPT, mp4=KEPT, webm=KEPT, ts=KEPT, nut=KEPT), "libopus"),
    "vorbis": audio("Vorbis", "vorbis", only(mkv=KEPT, mp4=KEPT, webm=KEPT, nut=KEPT)),
    "flac": audio("FLAC", "flac", only(mkv=KEPT, mp4=KEPT, nut=KEPT)),
    "pcm": audio("PCM", "pcm_s16le", only(mkv=KEPT, mp4=KEPT, mov=KEPT, avi=KEPT, nut=KEPT)),
    "dts": Item(
        label="DTS", make=foreign("dca"), fates=only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT, nut=KEPT), checks="audio", lost_as="dts"
    ),
    "truehd": Item(label="TrueHD", make=foreign("truehd"), fates=only(mkv=KEPT), checks="audio", lost_as="truehd"),
    "marks": Item(
        label="Marks: commentary, for the hard of hearing",
        make=lambda path: clip(path, add=sounds(replace(TRACKS[0], disposition=8), replace(TRACKS[1], disposition=128))),
        fates=only(mkv=KEPT, mp4=KEPT, ts=PART, nut=PART),
        checks="marks",
        lost_as="mark ",
    ),
    "cover-jpg": Item(label="Cover picture, JPEG", make=cover("mjpeg"), fates=only(mkv=KEPT, mp4=KEPT), checks="cover", lost_as="cover"),
    "cover-png": Item(label="Cover picture, PNG", make=cover("png"), fates=only(mkv=KEPT, mp4=KEPT), checks="cover", lost_as="cover"),
    "chapters": Item(
        label="Chapters",
        make=lambda path: clip(path, chapters=True),
        fates=all_but(ts=LOST, avi=LOST),
        checks="chapters",
        lost_as="chapters",
    ),
    "timecode": Item(
        label="Timecode",
        make=lambda path: clip(path, tags={"timecode": "01:02:03:04"}),
        suffix="mov",
        fates=all_but(ts=LOST, avi=PART),
        checks="timecode",
        lost_as="timecode",
    ),
    "tags": Item(
        label="Title, artist, date, comment, creation time",
        make=lambda path: clip(path, tags=TAGS),
        fates=all_but(ts=LOST, avi=PART),
        checks="tags",
        lost_as="creation_time",
    ),
    "other-tags": Item(
        label="Tags of any other name",
        make=lambda path: clip(path, tags={**TAGS, "com.maker.lens": "35 mm"}),
        fates=all_but(ts=LOST, avi=LOST),
        checks="other_tags",
        lost_as="COM.MAKER.LENS",
    ),
    "second-video": Item(
        label="Other video streams (H.264)",
        make=lambda path: clip(path, add=second_video),
        fates=only(mkv=KEPT, mp4=KEPT, mov=KEPT, ts=KEPT, nut=KEPT),
        checks="second_video",
        lost_as="video 2",
    ),
    "sar": Item(label="Sample aspect ratio", make=lambda path: clip(path, video=set_sar), fates=_ALL, checks="sar"),
    **{
        f"turned-{name}": Item(
            label=f"Display matrix: {name}",
            make=rotated(matrix),
            suffix="mp4",
            fates=_TURNED if name != "0" else _ALL,
            checks="matrix",
            lost_as="rotation",
            row=name != "0",
        )
        for name, matrix in TURNS.items()
    },
    "hdr10": Item(
        label="HDR10: PQ tags, mastering display, content light",
        make=lambda path: clip(path, codec="libx265", pix_fmt="yuv420p10le", options=HDR10, video=colours(16)),
        fates=all_but(avi=LOST),
        checks="hdr10",
        lost_as="HDR10",
    ),
    "hlg": Item(
        label="HLG tags, 10 bit",
        make=lambda path: clip(
            path, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=error:pools=1"}, video=colours(18)
        ),
        fates=all_but(avi=LOST),
        checks="hlg",
        lost_as="colour tags",
    ),
}


def table() -> str:
    """The table in Markdown: one line for things that fare alike."""
    rows: dict[str, list[str]] = {}
    for item in (item for item in ITEMS.values() if item.row):
        label = item.label.split(":")[0] if item.label.startswith("Display matrix") else item.label
        row = [_word(item.fates[container]) for container in CONTAINERS]
        if rows.setdefault(label, row) != row:
            rows[item.label] = row
    lines = ["| | " + " | ".join(CONTAINERS) + " |", "|---" * (len(CONTAINERS) + 1) + "|"]
    return "\n".join([*lines, *(f"| {label} | {' | '.join(row)} |" for label, row in rows.items())])


def _word(fate: str) -> str:
    return {KEPT: "kept", LOST: "dropped", PART: "in part"}.get(fate, f"as {fate}")


def main() -> None:
    if "--write" not in sys.argv:
        print(table())
        return
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
