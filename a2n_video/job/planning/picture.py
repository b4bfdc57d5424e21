"""Settle a job's picture: the network's factor, the result's size and shape, the encoder and its pixel format, and what of it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from a2n_video.engine.protocol import Geometry
from a2n_video.engine.select import settled_scale
from a2n_video.errors import OptionError
from a2n_video.io.backends import check_container, check_encoder, pix_fmts_of
from a2n_video.io.fitting import Fit
from a2n_video.io.mux.joining import segment_container
from a2n_video.io.mux.rehearsal import rehearse
from a2n_video.io.writer import EncoderSettings
from a2n_video.media.colorspec import PRIMARIES, RGB_MATRIX, TRANSFERS, UNSPECIFIED, ColorSpec
from a2n_video.media.containers import HOLDS
from a2n_video.media.encoders import default_codec, encoded_pix_fmt, encoder, encoder_options, merge_options, says_color
from a2n_video.media.hdr import HDR_WORDS, hdr_params, lost_hdr
from a2n_video.media.info import VideoInfo
from a2n_video.media.pixfmt import encodable
from a2n_video.media.planes import Family, PlaneFormat
from a2n_video.media.size import PictureSize, aligned, network_scale, parse_size, target_size
from a2n_video.media.streams import Container, StreamFate
from a2n_video.net.catalog import AUTO, available_models
from a2n_video.options import EncoderBackend, JobOptions, ModelOptions

# RGB becomes YUV as HD video does, which every player knows.
_YUV_OF_RGB: Final = 1
# Codecs that have no tags for it, and what their pictures are instead: BT.601, in JPEG files of full range with chroma in the centre
# (JFIF 1.02), in VP8 of limited range (RFC 6386, 9.2, as FFmpeg reads it).
_FIXED: Final[dict[str, dict[str, Any]]] = {
    "mjpeg": {"matrix": 5, "full_range": True, "chroma_location": 2},
    "libvpx": {"matrix": 5, "full_range": False},
}
# Codecs that know one number alone where two mean the same matrix.
_SAID_AS: Final[dict[str, dict[int, int]]] = {"utvideo": {6: 5}}
_SRGB_PRIMARIES, _SRGB_TRANSFER = 1, 13
_SAY_THE_RANGE: Final = frozenset({"mkv", "webm", "mp4", "y4m"})  # mov says all but that
_FULL_RANGE: Final = frozenset({"png", "tiff"})  # picture files know no other


@dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """A job's picture, settled. `notes` are for people; `fates` name what of the picture is kept in another way, or lost."""

    geometry: Geometry
    fit: Fit
    encoder: EncoderSettings
    display_matrix: tuple[int, ...] | None
    notes: tuple[str, ...] = ()
    fates: tuple[StreamFate, ...] = ()


def settle_picture(
    info: VideoInfo, time_base: Fraction, frame_rate: Fraction | None, container: Container, options: JobOptions
) -> PicturePlan:
    """Everything about the picture; OptionError for what cannot be encoded so."""
    _, size = settle_size(info, options)
    codec = options.encode.codec or default_codec(container, info.planes, (size.width, size.height))
    backend = options.encode.encoder_backend
    offered = pix_fmts_of_checked(codec, backend)
    check_container(codec, container, backend)
    plan = picture_for(info, codec, offered, container, options, time_base=time_base, frame_rate=frame_rate)
    check_encoder(plan.encoder)
    if container != "y4m":
        rehearse(plan.encoder, container, plan.fates)
    return plan


def picture_for(
    info: VideoInfo,
    codec: str,
    offered: tuple[str, ...],
    container: Container,
    options: JobOptions,
    *,
    time_base: Fraction,
    frame_rate: Fraction | None,
) -> PicturePlan:
    """The same for an encoder that is given, with the pixel formats it offers; it is not opened."""
    pix_fmt = encoded_pix_fmt(codec, info.planes, offered, options.encode.pix_fmt)
    tagless = not (encoder(codec).color or container in _SAY_THE_RANGE)
    geometry, fit, size = settle_fit(info, codec, pix_fmt, options, tagless=tagless)
    target = fit.target
    settings = EncoderSettings(
        container=segment_container(codec, alpha=target.alpha),
        codec=codec,
        width=target.width,
        height=target.height,
        pix_fmt=pix_fmt,
        time_base=time_base,
        frame_rate=frame_rate,
        color=fit.color,
        sar=size.sar,
        options=_encoder_options(codec, container, info, options),
        closed_gop=encoder(codec).gops,
        backend=options.encode.encoder_backend,
    )
    return PicturePlan(
        geometry=geometry,
        fit=fit,
        encoder=settings,
        display_matrix=_scaled_matrix(info.display_matrix, Fraction(target.width, info.width), Fraction(target.height, info.height)),
        notes=tuple(_notes(info, codec, size, fit)),
        fates=tuple(_fates(info, codec, container, fit)),
    )


def settle_fit(
    info: VideoInfo, codec: str, pix_fmt: str, options: JobOptions, *, tagless: bool = False
) -> tuple[Geometry, Fit, PictureSize]:
    """What the engine is built for, what its frames are brought to for an encoder, and the size before it asked for even sides.

    `tagless`: nothing in the result says what its range is, so that it must be what players take for granted.
    """
    scale, size = settle_size(info, options)
    target = encodable(pix_fmt, *_holdable(codec, pix_fmt, size))
    assert target is not None
    color = _said_by(codec, info.color.settled(info.planes))
    fit = Fit(target=target, color=_result_color(codec, color, info.planes, target, tagless), pix_fmt=pix_fmt)
    layout = _engine_layout(info.planes, color, scale, size, fit)
    return Geometry(source=info.planes, color=color, scale=scale, layout=layout), fit, size


def pix_fmts_of_checked(codec: str, backend: EncoderBackend = "pyav") -> tuple[str, ...]:
    """Pixel formats of an encoder; an OptionError for one that is not there."""
    try:
        return pix_fmts_of(codec, backend)
    except ValueError as error:
        raise OptionError(
            f"--codec {codec}: no such encoder in this FFmpeg; common ones are libx264 libx265 libsvtav1 libvpx-vp9 ffv1 prores_ks"
        ) from error


def settle_size(info: VideoInfo, options: JobOptions) -> tuple[int, PictureSize]:
    """The network's factor and the size of the result, before an encoder asks for even sides."""
    source = PictureSize(width=info.width, height=info.height, sar=info.sar)
    if options.fidelity.size is None:
        scale = settled_scale(options.model)
        return scale, PictureSize(width=info.width * scale, height=info.height * scale, sar=info.sar)
    size = target_size(parse_size(options.fidelity.size), source, info.rotation)
    return network_scale(_scales(options.model), source, size), size


def _scales(model: ModelOptions) -> set[int]:
    """The factors that can be had; weights of the user's own have one."""
    if model.weights is not None:
        return {settled_scale(model)}
    return {m.scale for m in available_models() if m.name == model.model or (model.model == AUTO and m.file)} or {settled_scale(model)}


def _holdable(codec: str, pix_fmt: str, size: PictureSize) -> tuple[int, int]:
    fmt = encodable(pix_fmt, size.width, size.height)
    assert fmt is not None
    return aligned(size.width, size.height, fmt.log2_chroma_w, fmt.log2_chroma_h) if encoder(codec).even else (size.width, size.height)


def _result_color(codec: str, color: ColorSpec, source: PlaneFormat, target: PlaneFormat, tagless: bool) -> ColorSpec:
    """The result's colour is the source's, but for RGB that becomes YUV and the other way round, and for codecs that have only one."""
    if codec in _FIXED:
        return replace(color, **_FIXED[codec])
    if source.family == "rgb" and target.family != "rgb":
        return replace(color, matrix=_YUV_OF_RGB, full_range=False)
    if target.family == "rgb" and source.family != "rgb":
        return replace(color, matrix=RGB_MATRIX, full_range=True)
    if codec in _FULL_RANGE:
        return replace(color, full_range=True)
    if tagless or encoder(codec).limited:
        return replace(color, full_range=target.family == "rgb")
    return color


def _said_by(codec: str, color: ColorSpec) -> ColorSpec:
    """The source's colour without primaries that an encoder cannot say, its matrix by the number that the codec has for it."""
    color = replace(color, matrix=_SAID_AS.get(codec, {}).get(color.matrix, color.matrix))
    return replace(color, primaries=UNSPECIFIED) if color.primaries > encoder(codec).primaries else color


def _engine_layout(source: PlaneFormat, color: ColorSpec, scale: int, size: PictureSize, fit: Fit) -> PlaneFormat | None:
    """What the engine gives: the result but for its edge, else `full_layout` to make it from; None is the source's own layout."""
    target = fit.target
    resized = (size.width, size.height) != (source.width * scale, source.height * scale)
    if resized or fit.color != color:
        return full_layout(source, alpha=target.alpha)
    layout = replace(target, width=source.width, height=source.height)
    return None if layout == source else layout


def full_layout(source: PlaneFormat, *, alpha: bool) -> PlaneFormat:
    """What a picture of another size or colour is made from: 16 bits, chroma in every pixel.

    YUV where the source is: RGB would cut what its codes hold beyond white and below black.
    """
    family: Family = "yuv" if source.family == "yuv" else "rgb"
    return PlaneFormat(width=source.width, height=source.height, family=family, depth=16, alpha=alpha)


def _encoder_options(codec: str, container: Container, info: VideoInfo, options: JobOptions) -> dict[str, str]:
    chosen = encoder_options(codec, options.encode)
    if HOLDS[container].steady:
        chosen = {**encoder(codec).in_order, **chosen}
    params, hdr = encoder(codec).params, hdr_params(codec, info.hdr)
    if not hdr or params is None:
        return chosen
    # The source's first: what the user says with -e comes after it and wins.
    given = chosen.pop(params, "")
    return merge_options({**chosen, params: hdr}, {params: given} if given else {}, params)


def _scaled_matrix(matrix: tuple[int, ...] | None, wider: Fraction, higher: Fraction) -> tuple[int, ...] | None:
    """A display matrix for a larger picture: its turn stays, the shift that follows is in pixels of the shown picture."""
    if matrix is None or not any(matrix[6:8]):
        return matrix
    turned = matrix[0] == 0 and matrix[4] == 0
    across, down = (higher, wider) if turned else (wider, higher)
    return (*matrix[:6], round(matrix[6] * across), round(matrix[7] * down), matrix[8])


def _notes(info: VideoInfo, codec: str, size: PictureSize, fit: Fit) -> Iterator[str]:
    if info.planes.family == "gray" and fit.target.family != "gray":
        neutral = " with neutral chroma" if fit.target.family == "yuv" else ""
        yield f"gray is written as {fit.pix_fmt}{neutral}: {codec} writes none that players take"
    if any(info.said.hidden):
        cut = info.said.cut(1 << info.planes.log2_chroma_w, 1 << info.planes.log2_chroma_h)
        parts = zip(cut, ("row", "row", "column", "column"), ("top", "bottom", "left", "right"), strict=True)
        hidden = ", ".join(f"{n} {name}{'s' * (n > 1)} at the {side}" for n, name, side in parts if n)
        yield f"cropped to {info.width}x{info.height}, the part that the container says to show (not {hidden})"
    columns, rows = fit.target.width - size.width, fit.target.height - size.height
    if columns or rows:
        sides = " and ".join(f"{n} {name}{'s' * (n > 1)}" for n, name in ((columns, "column"), (rows, "row")) if n)
        yield f"{size.width}x{size.height} cannot be encoded so: the last {sides} is repeated"
    if size.sar != info.sar:
        yield f"pixels are {size.sar.numerator}:{size.sar.denominator} instead of {info.sar.numerator}:{info.sar.denominator}, shown alike"


def _leaves_a_guess(said: ColorSpec, codec: str, target: PlaneFormat) -> bool:
    """Whether a result without colour tags could be taken for what it is not.

    The matrix and the range of YUV are guessed, unless the codec has only one; curves and primaries are sRGB's where nothing is said, which
    is right for a source that says nothing either.
    """
    if target.family == "yuv" and codec not in _FIXED:
        return True
    return said.primaries in PRIMARIES - {_SRGB_PRIMARIES} or said.transfer in TRANSFERS - {_SRGB_TRANSFER}


def _fates(info: VideoInfo, codec: str, container: Container, fit: Fit) -> Iterator[StreamFate]:
    source, target = info.planes, fit.target
    lost = lost_hdr(codec, info.hdr, boxed=HOLDS[container].hdr)
    if lost:
        reason = f"{codec} cannot be given it; libx265, libsvtav1 and libx264 can, and mp4 and mov hold it for any"
        reason = "it can only be written whole, in numbers that H.265 knows" if codec in HDR_WORDS or HOLDS[container].hdr else reason
        yield StreamFate(what=f"HDR10 {lost}", kind="hdr", fate="dropped", reason=reason)
    if not says_color(codec, container) and _leaves_a_guess(info.color, codec, target):
        holders = "y4m has no" if container == "y4m" else f"neither {container} nor {codec}'s video has a"
        reason = f"{holders} place for them: players will guess"
        yield StreamFate(what="colour tags", kind="color", fate="dropped", reason=reason)
    if info.color.primaries in PRIMARIES and info.color.primaries != _said_by(codec, info.color).primaries:
        what = f"colour primaries ({info.color.primaries})"
        yield StreamFate(what=what, kind="primaries", fate="dropped", reason=f"{codec} cannot say them; ffv1 and libsvtav1 can")
    if source.alpha and not target.alpha and HOLDS[container].alpha:
        yield StreamFate(what="alpha", kind="alpha", fate="dropped", reason=f"{fit.pix_fmt} has none; ffv1, libvpx-vp9 and prores_ks do")
    if target.depth < source.depth:
        what = f"bit depth ({source.depth} to {target.depth})"
        yield StreamFate(what=what, kind="depth", fate="dropped", reason=f"{codec} is to write {fit.target.depth} bits")
    if source.family != "gray" and (target.log2_chroma_w, target.log2_chroma_h) > (source.log2_chroma_w, source.log2_chroma_h):
        yield StreamFate(what="chroma resolution", kind="chroma", fate="dropped", reason=f"{codec} writes fewer chroma samples here")
