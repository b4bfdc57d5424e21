"""What becomes of everything in the source: one fate for every stream, chapter list, attachment, tag and side data. Pure values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final, Literal

from a2n_video.errors import OptionError
from a2n_video.media.containers import (
    CHAPTERS_FROM_ZERO,
    CODED_SUBTITLES,
    DISPOSITIONS,
    HOLDS,
    MUXER_OPTIONS,
    TEXT_SUBTITLES,
    Container,
    Holding,
)
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.tags import loses_region, lost_tags, needs_named_keys, tag_of, written_language
from a2n_video.options import Fidelity

__all__ = ["Container", "Fate", "StreamFate", "StreamPlan", "container_of", "format_plan", "plan_streams"]

Fate = Literal["upscaled", "copied", "converted", "dropped"]

CONTAINER_OF_SUFFIX: Final[dict[str, Container]] = {
    ".mkv": "mkv",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
    ".ts": "ts",
    ".m2ts": "m2ts",
    ".avi": "avi",
    ".nut": "nut",
    ".y4m": "y4m",
}
# FFmpeg's encoder for a codec that audio can be made into.
AUDIO_ENCODERS: Final[Mapping[str, str]] = {
    "aac": "aac",
    "ac3": "ac3",
    "eac3": "eac3",
    "mp3": "libmp3lame",
    "opus": "libopus",
    "vorbis": "libvorbis",
    "flac": "flac",
    "alac": "alac",
    "mp2": "mp2",
    "pcm_s16le": "pcm_s16le",
    "pcm_s24le": "pcm_s24le",
}


@dataclass(frozen=True, kw_only=True)
class StreamFate:
    """What becomes of one thing. `index` is the source stream's, None for what is no stream (chapters, tags, side data)."""

    what: str  # "audio 1 (aac, deu)", "chapters (12)", "Dolby Vision metadata"
    kind: str
    fate: Fate
    index: int | None = None
    to: str | None = None  # the codec it is converted to
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """The fates of all, for one container. `muxer_options` are what the muxer must be told so that the fates come true."""

    container: Container
    fates: tuple[StreamFate, ...]
    muxer_options: tuple[tuple[str, str], ...] = ()

    def of_stream(self, index: int) -> StreamFate | None:
        """The fate of a source stream, None for one the plan does not name."""
        return next((fate for fate in self.fates if fate.index == index), None)

    @property
    def losses(self) -> tuple[StreamFate, ...]:
        """What is dropped and had something in it."""
        return tuple(fate for fate in self.fates if fate.fate == "dropped" and fate.kind != "empty")

    def plus(self, *fates: StreamFate) -> StreamPlan:
        """The same with more fates, such as what the encoder cannot hold."""
        return replace(self, fates=self.fates + fates)

    def refuse_losses(self, into: str = "") -> None:
        """For --keep-all: an OptionError that names everything that would be lost, if anything is. `into`: what the result is to people."""
        if self.losses:
            lost = "; ".join(f"{fate.what} ({fate.reason})" for fate in self.losses)
            raise OptionError(f"--keep-all: {into or self.container} would lose {lost}. Another container may hold it: mkv holds most")


def container_of(dest: PurePath) -> Container:
    """The container an output name asks for, by its suffix in any case; an unknown one is an OptionError."""
    container = CONTAINER_OF_SUFFIX.get(dest.suffix.lower())
    if container is None:
        known = " ".join(sorted(CONTAINER_OF_SUFFIX))
        raise OptionError(f"{dest.name}: no container is known for {dest.suffix or 'a name without extension'!r}; use one of {known}")
    return container


def plan_streams(info: VideoInfo, container: Container, options: Fidelity, empty: frozenset[int] = frozenset()) -> StreamPlan:
    """The fate of everything in the source, in a container.

    Whatever the container holds is copied; text subtitles become its own kind of text; the rest is dropped and says why. Audio that
    it does not hold is made into `options.reencode_audio` where that is given. With `options.keep_all` any loss is an OptionError, as
    is a codec for audio that the container does not hold either. `empty` are the streams without a packet (`ScanResult.empty`).
    """
    holding = HOLDS[container]
    if options.reencode_audio is not None:
        _check_audio_codec(options.reencode_audio, container, holding)
    streams = [_stream_fate(info, stream, container, options.reencode_audio) for stream in info.streams]
    if container in NO_EMPTY_TRACKS:
        streams = [replace(f, fate="dropped", kind="empty", reason="it has no packets") if f.index in empty else f for f in streams]
    details = [*_chapters(info, container), *_tags(info, container), *_side_data(info, container)]
    plan = StreamPlan(container=container, fates=(*streams, *details), muxer_options=_muxer_options(info, container))
    if options.keep_all:
        plan.refuse_losses()
    return plan


# These muxers leave out a track without samples.
NO_EMPTY_TRACKS: Final = frozenset({"mp4", "mov"})


def _check_audio_codec(codec: str, container: Container, holding: Holding) -> None:
    if codec not in AUDIO_ENCODERS:
        raise OptionError(f"--reencode-audio {codec}: known are {' '.join(sorted(AUDIO_ENCODERS))}")
    if codec not in holding.audio:
        usable = " ".join(sorted(holding.audio & AUDIO_ENCODERS.keys()))
        raise OptionError(f"--reencode-audio {codec}: {container} does not hold {codec}; it holds {usable or 'no audio'}")


def describe(info: VideoInfo, stream: StreamInfo) -> str:
    """A stream in words: kind, number among its kind, codec, language, title."""
    same = [s.index for s in info.streams if s.kind == stream.kind]
    language, title = tag_of(stream.metadata, "language"), tag_of(stream.metadata, "title")
    known = [stream.codec, language if language not in ("und", None) else None, f"'{title}'" if title else None]
    details = ", ".join(part for part in known if part)
    name = "cover" if stream.is_cover else stream.kind
    number = "" if stream.is_cover else f" {same.index(stream.index) + 1}"
    if stream.kind == "attachment":
        return f"attachment {tag_of(stream.metadata, 'filename') or stream.index}"
    return f"{name}{number} ({details})"


def _stream_fate(info: VideoInfo, stream: StreamInfo, container: Container, reencode: str | None) -> StreamFate:
    base = StreamFate(what=describe(info, stream), kind="cover" if stream.is_cover else stream.kind, fate="dropped", index=stream.index)
    if stream.index == info.video_index:
        return replace(base, fate="upscaled")
    holding = HOLDS[container]
    if stream.is_cover:
        kept = stream.codec in holding.covers
        return replace(base, fate="copied") if kept else replace(base, reason=f"{container} holds no cover pictures")
    return {
        "video": lambda: _video(base, stream, container),
        "audio": lambda: _audio(base, stream, container, reencode),
        "subtitle": lambda: _subtitle(base, stream, container),
        "attachment": lambda: _copied_if(base, holding.attachments, f"{container} holds no attachments"),
        "data": lambda: _data(base, info, stream, container),
    }[stream.kind]()


def _copied_if(base: StreamFate, held: bool, reason: str) -> StreamFate:
    return replace(base, fate="copied") if held else replace(base, reason=reason)


def _video(base: StreamFate, stream: StreamInfo, container: Container) -> StreamFate:
    """A video beside the one that is upscaled. One whose header is damaged has no size, and muxers refuse the whole file for it."""
    if not (stream.width and stream.height):
        return replace(base, reason="its header gives no picture size")
    return _copied_if(base, stream.codec in HOLDS[container].video, f"{container} cannot be given another {stream.codec} video")


def _audio(base: StreamFate, stream: StreamInfo, container: Container, reencode: str | None) -> StreamFate:
    if stream.codec in HOLDS[container].audio:
        return replace(base, fate="copied")
    reason = f"{container} does not hold {stream.codec}"
    if reencode is not None:
        return replace(base, fate="converted", to=reencode, reason=reason)
    if container == "y4m":
        return replace(base, reason=reason)
    return replace(base, reason=f"{reason}; --reencode-audio CODEC converts it")


def _subtitle(base: StreamFate, stream: StreamInfo, container: Container) -> StreamFate:
    holding = HOLDS[container]
    if stream.codec in holding.subtitles:
        return replace(base, fate="copied")
    if stream.codec in TEXT_SUBTITLES and holding.text is not None:
        styles = ", styles are simplified" if stream.codec == "ass" else ""
        return replace(base, fate="converted", to=holding.text, reason=f"{container} does not hold {stream.codec}{styles}")
    pictures = "" if stream.codec in TEXT_SUBTITLES | CODED_SUBTITLES else " (pictures, which cannot become text)"
    return replace(base, reason=f"{container} does not hold {stream.codec}{pictures}")


def _data(base: StreamFate, info: VideoInfo, stream: StreamInfo, container: Container) -> StreamFate:
    holding = HOLDS[container]
    if tag_of(stream.metadata, "timecode") is not None:
        kept = replace(base, what="timecode track", fate="converted", to="timecode tag")
        return kept if holding.timecode else replace(base, what="timecode track", reason=f"{container} holds no timecode")
    if stream.codec == "bin_data" and info.chapters and "mov" in info.container.split(","):
        kept = replace(base, what="chapter track", fate="converted", to="chapters")
        return kept if holding.chapters else replace(base, what="chapter track", reason=f"{container} holds no chapters")
    return _copied_if(base, stream.codec in holding.data, f"{container} cannot be given {stream.codec} data")


def _chapters(info: VideoInfo, container: Container) -> Iterator[StreamFate]:
    if info.chapters:
        base = StreamFate(what=f"chapters ({len(info.chapters)})", kind="chapters", fate="dropped")
        kept = _copied_if(base, HOLDS[container].chapters, f"{container} holds no chapters")
        late = container in CHAPTERS_FROM_ZERO and min(chapter.start for chapter in info.chapters) > 0
        reason = f"{container}'s begin with the file: one without a name fills what lies before the first"
        yield replace(kept, reason=reason) if late else kept


def _tags(info: VideoInfo, container: Container) -> Iterator[StreamFate]:
    """Tags the container has no place for: the file's, then each kept stream's, dispositions and language included."""
    lost = lost_tags(info.metadata, container, of_stream=False)
    if lost:
        yield StreamFate(what=f"tags {', '.join(lost)}", kind="tags", fate="dropped", reason=f"{container} has no place for them")
    for stream in info.streams:
        if stream.kind not in ("video", "audio", "subtitle") or stream.is_cover or container == "y4m":
            continue
        if _stream_fate(info, stream, container, None).fate == "dropped" and stream.kind != "audio":
            continue
        yield from _stream_tags(info, stream, container)


def _stream_tags(info: VideoInfo, stream: StreamInfo, container: Container) -> Iterator[StreamFate]:
    holding = HOLDS[container]
    what = describe(info, stream)
    lost = lost_tags(stream.metadata, container, of_stream=True, of_video=stream.kind == "video")
    if lost:
        yield StreamFate(what=f"tags {', '.join(lost)} of {what}", kind="tags", fate="dropped", reason=f"{container} has no place for them")
    language = tag_of(stream.metadata, "language") or ""
    if "language" not in lost and (code := written_language(language, container)) and loses_region(language, container):
        reason = f"{container} has languages of three letters only: it becomes {code}"
        yield StreamFate(what=f"region of language {language} of {what}", kind="tags", fate="dropped", reason=reason)
    flags = [name for name, flag in DISPOSITIONS.items() if stream.disposition & flag and name != "default"]
    unheld = [name for name in flags if name not in holding.dispositions]
    if unheld:
        reason = f"{container} has no such mark"
        yield StreamFate(what=f"mark {', '.join(unheld)} of {what}", kind="disposition", fate="dropped", reason=reason)


def kept_disposition(disposition: int, container: Container) -> int:
    """The marks of a stream that a container holds."""
    return disposition & sum(DISPOSITIONS[name] for name in HOLDS[container].dispositions)


def _side_data(info: VideoInfo, container: Container) -> Iterator[StreamFate]:
    holding = HOLDS[container]
    if info.display_matrix is not None and not holding.rotation:
        what = f"rotation by {info.rotation:g} degrees{_mirrored(info.display_matrix)}"
        yield StreamFate(what=what, kind="rotation", fate="dropped", reason=f"{container} holds none, and pixels are not turned")
    elif info.display_matrix is not None and container in ("mkv", "webm") and _sheared(info.display_matrix):
        reason = f"{container} holds turns and mirroring only"
        yield StreamFate(what="a display matrix that shears", kind="rotation", fate="dropped", reason=reason)
    if info.alpha and not holding.alpha:
        yield StreamFate(what="alpha", kind="alpha", fate="dropped", reason=f"{container} holds no video with alpha")
    for name in info.dynamic_hdr:
        reason = "it describes each source frame, and cannot be made for the new ones"
        yield StreamFate(what=f"{name} metadata", kind="hdr", fate="dropped", reason=reason)
    for what in info.beside:
        yield StreamFate(what=what, kind="beside", fate="dropped", reason="nothing of the kind is written")
    for what in info.unread:
        yield StreamFate(what=what, kind="unread", fate="dropped", reason="a picture file is read as one picture")


def _sheared(matrix: tuple[int, ...]) -> bool:
    a, b, _, c, d = matrix[:5]
    return a * c + b * d != 0 or a * a + b * b != c * c + d * d or not (a or b)


def _mirrored(matrix: tuple[int, ...]) -> str:
    a, b, _, c, d = matrix[:5]
    return ", mirrored" if a * d < b * c else ""


def _muxer_options(info: VideoInfo, container: Container) -> tuple[tuple[str, str], ...]:
    """For MP4 and QuickTime: colour tags even where some are unknown, and named keys where tags need them."""
    if container not in ("mp4", "mov"):
        return tuple(MUXER_OPTIONS.get(container, {}).items())
    return (("movflags", "+write_colr" + ("+use_metadata_tags" if needs_named_keys(info.metadata, container) else "")),)


_WORDS: Final[Mapping[Fate, str]] = {"upscaled": "upscaled", "copied": "kept", "converted": "converted", "dropped": "DROPPED"}


def format_plan(plan: StreamPlan) -> str:
    """The plan as a table for people: what, its fate, and to what or why."""
    rows = [(fate.what, _WORDS[fate.fate], _remark(fate)) for fate in plan.fates]
    width = max((len(what) for what, _, _ in rows), default=0)
    return "\n".join(f"{what:<{width}}  {fate:<9}  {remark}".rstrip() for what, fate, remark in rows)


def _remark(fate: StreamFate) -> str:
    to = f"to {fate.to}" if fate.to else ""
    return ": ".join(part for part in (to, fate.reason) if part)
