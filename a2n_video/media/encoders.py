"""Which encoder for which container and depth, and how each is told what the user says. Tables and pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from a2n_video.errors import OptionError
from a2n_video.media.containers import HOLDS, TRANSPORT
from a2n_video.media.pixfmt import closest, encodable, pix_fmt_of
from a2n_video.media.planes import PlaneFormat
from a2n_video.media.streams import Container
from a2n_video.options import EncodeOptions


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What we know of an FFmpeg encoder beyond what FFmpeg tells.

    `quality` are the options that --crf sets, `default_crf` what they are without, `crfs` the best and the worst that mean anything;
    `speed` is what --preset sets, `presets` all that it may be, empty where we do not know. `params` names the option that holds
    key=value pairs of the library's own, `even` whether 4:2:0 and 4:2:2 need even sizes, `least` the smallest side that is safe.
    `counts`: its own clock is coarse or has a few rates only, so frames are counted in it, and the container alone holds their time.
    `color`: colour tags lie in its own bitstream; `primaries`: the last number it can say of them; `limited`: it has limited range only.
    `display_aspect`: its header has a few shapes of pictures, and none of pixels. `in_order`: options for containers that know no other
    order than that of the file. `refused`: formats that it lists and refuses, or that come back as others.
    """

    quality: tuple[str, ...] = ()
    default_crf: float | None = None
    crfs: tuple[float, float] = (-math.inf, math.inf)
    speed: str | None = None
    default_preset: str | None = None
    params: str | None = None
    even: bool = False
    fixed: Mapping[str, str] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    gops: bool = True  # False: every picture stands alone, and asking for closed groups is refused
    presets: tuple[str, ...] = ()
    least: int = 1
    counts: bool = False
    color: bool = False
    primaries: int = 22
    limited: bool = False
    display_aspect: bool = False
    in_order: Mapping[str, str] = field(default_factory=dict)


def _quantised(**known: Any) -> Encoder:
    """An encoder of FFmpeg's own with one quantiser for all."""
    return Encoder(quality=("qmin", "qmax"), default_crf=2, crfs=(1, 31), **known)


def _hardware(quality: str, default: float, **known: Any) -> Encoder:
    """One of a graphics card's."""
    return Encoder(quality=(quality,), default_crf=default, even=True, color=True, **known)


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(map(str, range(first, last + 1)))


_X26X_PRESETS: Final = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
HARDWARE: Final = ("h264", "hevc", "av1")
# x265: `info=0` keeps the extradata equal however many threads there are, so that segments join.
ENCODERS: Final[dict[str, Encoder]] = {
    "libx264": Encoder(
        quality=("crf",),
        default_crf=16,
        crfs=(0, 51),
        speed="preset",
        default_preset="medium",
        params="x264-params",
        even=True,
        in_order={"bf": "0"},
        presets=_X26X_PRESETS,
        color=True,
        primaries=12,
        refused=frozenset({"gray", "gray10le"}),  # decoders give H.264's monochrome as 4:2:0, and it says no matrix
    ),
    "libx264rgb": Encoder(
        quality=("crf",),
        default_crf=16,
        crfs=(0, 51),
        speed="preset",
        default_preset="medium",
        params="x264-params",
        in_order={"bf": "0"},
        presets=_X26X_PRESETS,
        color=True,
        primaries=12,
    ),
    "libx265": Encoder(
        quality=("crf",),
        default_crf=18,
        crfs=(0, 51),
        speed="preset",
        default_preset="medium",
        params="x265-params",
        even=True,
        fixed={"x265-params": "log-level=error:info=0"},
        refused=frozenset({"yuva420p", "yuva420p10le"}),
        in_order={"bf": "0"},
        presets=_X26X_PRESETS,
        color=True,
        primaries=12,
        least=64,  # it writes beyond its buffers where a side is shorter than its largest block: 48x32 corrupted the heap
    ),
    "libsvtav1": Encoder(
        quality=("crf",),
        default_crf=22,
        crfs=(0, 63),
        speed="preset",
        default_preset="6",
        presets=_numbers(-1, 13),
        params="svtav1-params",
        even=True,
        color=True,
        least=16,  # at 8x8 it writes beyond a buffer and corrupts the heap
    ),
    "libvpx-vp9": Encoder(
        quality=("crf",),
        default_crf=20,
        crfs=(0, 63),
        speed="cpu-used",
        default_preset="3",
        presets=_numbers(-8, 8),
        fixed={"b": "0", "row-mt": "1", "deadline": "good"},
        refused=frozenset(  # of formats with alpha it takes yuva420p alone
            {f"{name}{depth}" for name in ("yuva420p", "yuva422p", "yuva444p", "gbrap") for depth in ("", "10le", "12le")} - {"yuva420p"}
        ),
    ),
    "libaom-av1": Encoder(
        quality=("crf",),
        default_crf=20,
        crfs=(0, 63),
        speed="cpu-used",
        default_preset="6",
        fixed={"b": "0", "row-mt": "1"},
        even=True,
        color=True,
    ),
    **{f"{codec}_nvenc": _hardware("cq", 19, speed="preset", default_preset="p5") for codec in HARDWARE},
    **{f"{codec}_vaapi": _hardware("qp", 20) for codec in HARDWARE},
    **{f"{codec}_qsv": _hardware("global_quality", 20, speed="preset") for codec in HARDWARE},
    # With alpha it could be told apart from no other matrix: FFmpeg reads that with libvpx, which says nothing of VP8's.
    "libvpx": Encoder(
        quality=("crf",),
        default_crf=8,
        crfs=(4, 63),
        speed="cpu-used",
        default_preset="3",
        presets=_numbers(-16, 16),
        fixed={"b": "0"},
        refused=frozenset({"yuva420p"}),
    ),
    "prores_ks": Encoder(speed="profile", color=True, limited=True),
    "ffv1": Encoder(fixed={"level": "3", "slicecrc": "1"}),
    # Closed GOPs, which segments need, are refused by these two unless they leave scene cuts alone.
    "mpeg4": _quantised(counts=True, fixed={"sc_threshold": "1000000000"}),
    "mpeg2video": _quantised(counts=True, even=True, color=True, limited=True, display_aspect=True, fixed={"sc_threshold": "1000000000"}),
    "mjpeg": _quantised(gops=False, fixed={"strict": "unofficial"}),
    "png": Encoder(color=True),
    "tiff": Encoder(),
    "qtrle": Encoder(refused=frozenset({"gray"})),  # which it writes as a palette of grays
    "v210": Encoder(even=True, refused=frozenset({"yuv422p"})),  # which it deepens
    "wrapped_avframe": Encoder(),
}

# The codec a container gets when none is named: for 8-bit sources, deeper ones, RGB, and sources with alpha.
DEFAULT_CODECS: Final[dict[Container, tuple[str, str, str, str]]] = {
    "mkv": ("libx264", "libx265", "ffv1", "ffv1"),
    "mp4": ("libx264", "libx265", "libx265", "libx264"),
    "mov": ("libx264", "libx265", "libx265", "prores_ks"),
    "webm": ("libvpx-vp9", "libsvtav1", "libvpx-vp9", "libvpx-vp9"),
    **dict.fromkeys(TRANSPORT, ("libx264", "libx265", "libx264", "libx264")),
    "avi": ("libx264", "ffv1", "ffv1", "ffv1"),
    "nut": ("libx264", "libx265", "ffv1", "ffv1"),
    "y4m": ("wrapped_avframe", "wrapped_avframe", "wrapped_avframe", "wrapped_avframe"),
}


def encoder(codec: str) -> Encoder:
    """What we know of an encoder; of one that is not in the table only that even sizes are safe: it gets the user's options as they are."""
    return ENCODERS.get(codec, Encoder(even=True))


def says_color(codec: str, container: Container) -> bool:
    """Whether what an encoder makes has a place for colour tags in a container: in the video or beside it."""
    return encoder(codec).color or HOLDS[container].color


def default_codec(container: Container, fmt: PlaneFormat, size: tuple[int, int] | None = None) -> str:
    """The encoder for native planes in a container when the user names none; for a result too small for it, that of plain video."""
    plain, deep, rgb, alpha = DEFAULT_CODECS[container]
    if fmt.alpha:
        return alpha
    chosen = rgb if fmt.family == "rgb" else deep if fmt.depth > 8 else plain
    return plain if size is not None and min(size) < encoder(chosen).least else chosen


def encoder_options(codec: str, options: EncodeOptions) -> dict[str, str]:
    """FFmpeg options for an encoder: ours, then --crf and --preset under the encoder's own names, then -e, which wins.

    --crf or --preset for an encoder that has none, or beyond what it has, is an OptionError.
    """
    known = encoder(codec)
    result = dict(known.fixed)
    if options.preset is not None and known.presets and options.preset not in known.presets:
        raise OptionError(f"--preset {options.preset}: {codec} has {' '.join(known.presets)}")
    best, worst = known.crfs
    if options.crf is not None and not best <= options.crf <= worst:  # libx264 would take 99 for 51 and say nothing
        raise OptionError(f"--crf {options.crf:g}: {codec} takes {best:g} (best) to {worst:g}")
    for given, default, names, flag in (
        (options.crf, known.default_crf, known.quality, "--crf"),
        (options.preset, known.default_preset, (known.speed,) if known.speed else (), "--preset"),
    ):
        if given is not None and not names:
            raise OptionError(f"{codec} has no setting for {flag}; pass its own options with -e KEY=VALUE")
        value = given if given is not None else default
        if value is not None:
            result.update(dict.fromkeys(names, f"{value:g}" if isinstance(value, float | int) else value))
    return merge_options(result, options.encoder_options, known.params)


def merge_options(base: Mapping[str, str], more: Mapping[str, str], params: str | None) -> dict[str, str]:
    """Options with `more` on top; the library's own key=value string is joined, not replaced."""
    result = dict(base)
    for key, value in more.items():
        result[key] = f"{result[key]}:{value}" if key == params and key in result else value
    return result


def encoded_pix_fmt(codec: str, fmt: PlaneFormat, offered: tuple[str, ...], wanted: str | None) -> str:
    """The pixel format to encode `fmt` in: the one wanted, or the closest the encoder offers (empty: takes any).

    A wanted format that is unknown, or that the encoder does not offer, is an OptionError that lists what it does.
    """
    usable = tuple(name for name in offered if name not in encoder(codec).refused and encodable(name, 2, 2) is not None)
    if wanted is not None:
        if encodable(wanted, 2, 2) is None or (offered and wanted not in usable):
            raise OptionError(f"{codec} does not write pixel format {wanted!r}; it writes {' '.join(usable) or 'planar formats'}")
        return wanted
    if not offered:
        return pix_fmt_of(fmt)
    best = closest(fmt, usable)
    if best is None:
        raise OptionError(
            f"{codec} writes none of the formats that this picture can be given in ({' '.join(offered)}); choose another --codec"
        )
    return best
