"""Look into a source file: its streams, and the first decoded frame of the video that will be upscaled."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.stream import VideoStream

from a2n_video.errors import DecodeError, IncompleteSourceError, UnsupportedFormatError
from a2n_video.frames import color_of_frame, fraction
from a2n_video.io.chunks import beside, pages
from a2n_video.io.decoding import fed, open_decoder, said_of
from a2n_video.io.graphs import through
from a2n_video.io.programs import programs
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.info import Chapter, HdrMetadata, StreamInfo, VideoInfo
from a2n_video.media.pixfmt import native_pix_fmt, plane_format
from a2n_video.media.planes import PlaneFormat
from a2n_video.media.timemap import told

_PACKETS_TO_FIRST_FRAME = 2000
_FLAT: Final = 0  # AV_STEREO3D_2D
_RECTILINEAR: Final = 4  # AV_SPHERICAL_RECTILINEAR: as any picture


def probe(path: Path | str, max_pixels: int = 8192 * 4320, *, video_number: int | None = None) -> VideoInfo:
    """Read what a file holds: its streams, and its video's format from the first frame that decodes.

    `video_number` picks one of several videos, counted without covers; else FFmpeg's best is taken.
    Raises InputError where it cannot be read, DecodeError where there is no video, IncompleteSourceError where no frame of it
    can be decoded, UnsupportedFormatError for a picture larger than `max_pixels` or in a format without planes.
    """
    try:
        return _probed(Path(path), max_pixels, video_number, ignore_edits=False)
    except IncompleteSourceError:
        if Path(path).suffix.lower() not in _WITH_EDIT_LISTS:
            raise
        return _probed(Path(path), max_pixels, video_number, ignore_edits=True)


# An edit list can leave out every frame, as one whose picture lies before its sound does: then it is read without.
_WITH_EDIT_LISTS: Final = frozenset({".mp4", ".m4v", ".mov"})


def _probed(path: Path, max_pixels: int, video_number: int | None, *, ignore_edits: bool) -> VideoInfo:
    with open_source(path, ignore_edits=ignore_edits) as container:
        stream = video_stream(container, path, video_number)
        check_stream(stream, path, max_pixels)
        streams = tuple(_stream_info(s) for s in container.streams)
        chapters = tuple(_chapter(c) for c in container.chapters())
        said = said_of(stream)
        frame = first_frame(container, stream, path)
        return VideoInfo(
            path=path,
            container=container.format.name,
            size_bytes=max(0, container.size or 0),
            duration=Fraction(container.duration, av.time_base) if container.duration else None,
            metadata=dict(container.metadata),
            chapters=chapters,
            streams=streams,
            video_index=stream.index,
            ignore_edits=ignore_edits,
            said=said,
            unread=more(pages(path), "page"),
            **_picture(stream, frame, path),
        )


def _division(path: Path) -> tuple[str, ...]:
    """The programs of a broadcast, where there are several: a result has one."""
    found = programs(path)
    return (f"the division into programs ({', '.join(found)})",) if len(found) > 1 else ()


def more(count: int, what: str) -> tuple[str, ...]:
    """How many there are of something beside the first one, in words, if there are."""
    return (f"{count - 1} more {what}{'s' * (count > 2)}",) if count > 1 else ()


def first_frame(container: InputContainer, stream: VideoStream, path: Path) -> av.VideoFrame:
    """The first frame that decodes; broken packets before it are passed over. IncompleteSourceError where there is none."""
    decoder = open_decoder(stream, threads=1)
    name = stream.codec_context.codec.canonical_name  # reading can change it to one nobody knows
    with contextlib.suppress(av.FFmpegError):  # reading itself ends, as at a packet of half a gigabyte that a damaged table names
        for packet in fed(itertools.islice(container.demux(stream), _PACKETS_TO_FIRST_FRAME)):
            with contextlib.suppress(av.FFmpegError, ValueError):  # ValueError: a codec that is not known once packets came
                for frame in decoder.decode(packet):
                    return frame
    raise IncompleteSourceError(f"{path}: damaged: no frame of its {name} video can be decoded; nothing was written")


def check_stream(stream: VideoStream, path: Path, max_pixels: int) -> None:
    """DecodeError for a codec that nobody knows, UnsupportedFormatError for a picture larger than allowed."""
    if stream.codec_context is None:
        raise DecodeError(f"{path}: its video's codec is not known")
    check_pixels(path, stream.codec_context.width, stream.codec_context.height, max_pixels)


def check_pixels(source: Path | str, width: int, height: int, max_pixels: int) -> None:
    """UnsupportedFormatError for a picture larger than allowed."""
    if width * height > max_pixels:
        raise UnsupportedFormatError(
            f"{source}: {width}x{height} is more than the {max_pixels} pixels allowed; raise --max-pixels if you trust this source"
        )


def _picture(stream: VideoStream, frame: av.VideoFrame, path: Path) -> dict[str, Any]:
    context = stream.codec_context
    side_data = {kind: bytes(data) for kind, data in _without_profile(frame, context.codec.canonical_name).side_data.items()}
    coded = {str(kind): bytes(data) for kind, data in context.coded_side_data.items()}
    matrix = side_data.get(Type.DISPLAYMATRIX) or coded.get("display_matrix")
    planes, color = _native(frame, path)
    return {
        "pix_fmt": frame.format.name,
        "planes": planes,
        "color": color,
        "frame_rate": fraction(stream.guessed_rate) or fraction(stream.average_rate),
        "time_base": fraction(stream.time_base) or Fraction(1, 1000),
        "sar": fraction(stream.sample_aspect_ratio) or fraction(context.sample_aspect_ratio) or Fraction(1),
        "rotation": float(frame.rotation),
        "display_matrix": struct.unpack("9i", matrix) if matrix else None,
        "interlaced": bool(frame.interlaced_frame),
        "hdr": hdr_metadata(side_data, coded),
        "dynamic_hdr": _dynamic_hdr(side_data, coded),
        "beside": (*beside(path), *_division(path), *_marks(side_data, coded)),
        "alpha": planes.alpha,
        "first_pts": told(frame.pts),
    }


def _without_profile(frame: av.VideoFrame, codec: str) -> av.VideoFrame:
    """The frame, of PNG one without the colour profile: it has a name, and PyAV 19 frees what it has looked at twice where there is one."""
    if codec not in ("png", "apng"):
        return frame
    return next(through(iter([frame]), (("sidedata", "mode=delete:type=ICC_PROFILE"),)))


def _native(frame: av.VideoFrame, path: Path) -> tuple[PlaneFormat, ColorSpec]:
    native = native_pix_fmt(frame.format.name)
    fmt = plane_format(native, frame.width, frame.height) if native else None
    if fmt is None:
        raise UnsupportedFormatError(f"{path}: pixel format {frame.format.name} cannot be read as planes")
    return fmt, color_of_frame(frame)


def _stream_info(stream: Any) -> StreamInfo:
    time_base = fraction(stream.time_base) or Fraction(1, 1000)
    context: Any = getattr(stream, "codec_context", None)
    return StreamInfo(
        index=stream.index,
        kind=stream.type if stream.type in ("video", "audio", "subtitle", "attachment") else "data",
        codec=context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown",
        time_base=time_base,
        start_pts=stream.start_time,
        duration=stream.duration * time_base if stream.duration else None,
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        width=getattr(context, "width", 0) or 0,
        height=getattr(context, "height", 0) or 0,
        sample_rate=getattr(context, "sample_rate", 0) or 0,
        channels=getattr(context, "channels", 0) or 0,
        side_data=tuple(str(kind) for kind in context.coded_side_data) if hasattr(context, "coded_side_data") else (),
    )


def _chapter(chapter: Any) -> Chapter:
    base = fraction(chapter["time_base"]) or Fraction(1, 1000)
    return Chapter(id=chapter["id"], start=chapter["start"] * base, end=chapter["end"] * base, metadata=dict(chapter["metadata"]))


def hdr_metadata(side_data: Mapping[Type, bytes], coded: Mapping[str, bytes]) -> HdrMetadata | None:
    """Static HDR10 metadata, None where there is none; a light level of 0 and 0 says that it is unknown, and counts as none.

    The bytes are FFmpeg's structs AVMasteringDisplayMetadata (eleven rationals, two flags) and AVContentLightMetadata.
    """
    mastering = side_data.get(Type.MASTERING_DISPLAY_METADATA) or coded.get("mastering_display_metadata")
    light = side_data.get(Type.CONTENT_LIGHT_LEVEL) or coded.get("content_light_level")
    levels = struct.unpack_from("2I", light) if light else (0, 0)
    if not mastering and not any(levels):
        return None
    values: dict[str, Any] = {}
    if mastering:
        numbers = struct.unpack_from("22i", mastering)
        rationals = [Fraction(a, b) if b else Fraction(0) for a, b in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        has_primaries, has_luminance = numbers[20:22]
        if has_primaries:
            pairs = [(rationals[i], rationals[i + 1]) for i in range(0, 8, 2)]
            values.update(zip(("red", "green", "blue", "white"), pairs, strict=True))
        if has_luminance:
            values.update(min_luminance=rationals[8], max_luminance=rationals[9])
    if any(levels):
        values["max_content"], values["max_average"] = levels
    return HdrMetadata(**values)


def _dynamic_hdr(side_data: Mapping[Type, bytes], coded: Mapping[str, bytes]) -> tuple[str, ...]:
    dolby = Type.DOVI_RPU_BUFFER in side_data or Type.DOVI_METADATA in side_data or "dovi_conf" in coded
    found = {"Dolby Vision": dolby, "HDR10+": Type.DYNAMIC_HDR_PLUS in side_data, "HDR Vivid": Type.DYNAMIC_HDR_VIVID in side_data}
    return tuple(name for name, there in found.items() if there)


def _marks(side_data: Mapping[Type, bytes], coded: Mapping[str, bytes]) -> tuple[str, ...]:
    """What is said of the picture and not written again."""
    found = {
        "closed captions (CEA-608/708) in the video": Type.A53_CC in side_data,
        "stereo 3D marks": _is_other(side_data.get(Type.STEREO3D) or coded.get("stereo_3d"), _FLAT),
        "spherical (360 degree) marks": _is_other(side_data.get(Type.SPHERICAL) or coded.get("spherical"), _RECTILINEAR),
    }
    return tuple(name for name, there in found.items() if there)


def _is_other(data: bytes | None, plain: int) -> bool:
    """Whether one of FFmpeg's structs AVStereo3D and AVSphericalMapping, which begin with their kind, is of another than the plain one."""
    return data is not None and struct.unpack_from("i", data)[0] != plain
