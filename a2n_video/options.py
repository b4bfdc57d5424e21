"""Everything a job can be told: one frozen object for the CLI, Python, the journal and workers.

Every part settles its fields when it is made: choices, types, times and rates as people write them. What does not fit is an OptionError.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from fractions import Fraction
from numbers import Rational, Real
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from a2n_video.errors import OptionError

Deinterlace = Literal["auto", "frame", "field", "ivtc", "off"]
EncoderBackend = Literal["pyav", "ffmpeg"]
PipeFormat = Literal["y4m", "nut", "mkv"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]

_CLOCK: Final = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d+)?)")
_NEAR: Final = Fraction(1, 200)  # as far as two decimals lie from what they were rounded from


def seconds_of(value: object) -> Fraction:
    """A time as people write it ("90.5", "1:30.5", "1:02:03") or a number of seconds from 0 on, exact: 0.1 is 1/10. OptionError else."""
    if isinstance(value, str) and (match := _CLOCK.fullmatch(value.strip())):
        hours, minutes, rest = match.groups()
        return Fraction(int(hours or 0) * 3600 + int(minutes or 0) * 60) + Fraction(rest)
    if isinstance(value, Real | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        exact = value if isinstance(value, Fraction) else Fraction(str(value))
        if exact >= 0:
            return exact
    raise OptionError(f"{value!r} is no time; write 90.5 or 0:01:30.5")


def rate_of(value: object) -> Fraction:
    """Frames a second: an int, a Fraction, "25" or "24000/1001"; a float as the usual rate that it stands for. OptionError else.

    NumPy's numbers are taken as well.
    """
    if isinstance(value, Real) and not isinstance(value, Rational):
        return _usual_rate(float(value))
    found = Fraction(0)
    if isinstance(value, Rational) and not isinstance(value, bool):
        found = Fraction(int(value.numerator), int(value.denominator))
    elif isinstance(value, str):
        with suppress(ValueError, ZeroDivisionError):
            found = Fraction(value)
    if found <= 0:
        raise OptionError(f"{value!r} is no frame rate; write 25 or 24000/1001")
    return found


def _usual_rate(value: float) -> Fraction:
    """A whole or half number of frames a second, or that many in 1.001 s (23.976, 29.97), whichever is nearest."""
    if math.isfinite(value) and value > 0:
        exact = Fraction(value)
        usual = Fraction(round(exact)), Fraction(round(2 * exact), 2), Fraction(1000 * round(exact * Fraction(1001, 1000)), 1001)
        nearest = min(usual, key=lambda rate: abs(rate - exact))
        if nearest > 0 and abs(nearest - exact) < _NEAR:
            return nearest
    raise OptionError(f"{value!r} is no usual frame rate, and a float is no exact one; give a Fraction, or a text such as '24000/1001'")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Fields are settled by their type hints when it is made, whoever made it: what does not fit is an OptionError at once."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _settled(name, kind, getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class ModelOptions(_Part):
    """Which network, and where and how it runs."""

    model: str = "auto"
    weights: str | None = None
    scale: int = 2
    device: str | None = None
    dtype: Dtype = "auto"
    batch_size: int | None = None
    engine: Literal["auto", "native", "torch", "openvino", "accelerator", "nearest"] = "auto"
    threads: int | None = None
    compile: Literal["auto", "on", "off"] = "auto"
    cuda_graph: bool = False


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(_Part):
    """How the picture is encoded; None means: chosen from the container and the depth."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    encoder_backend: EncoderBackend = "pyav"
    pipe_format: PipeFormat = "y4m"


@dataclass(frozen=True, kw_only=True)
class TimeRange(_Part):
    """Which part of the source: times in seconds from its first frame; `end` is exclusive. Taken is what `seconds_of` takes."""

    start: Fraction | None = None
    end: Fraction | None = None
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fidelity(_Part):
    """What must survive, and how the picture is read. For `fps`, taken is what `rate_of` takes."""

    keep_all: bool = False
    reencode_audio: str | None = None
    deinterlace: Deinterlace = "auto"
    size: str | None = None
    fps: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class Execution(_Part):
    """How the job runs: what it may overwrite, how it survives, what it may cost."""

    overwrite: bool = False
    resume: bool = True
    restart: bool = False
    segment_frames: int | None = None
    max_errors: int | None = None
    fail_on_damage: bool = False
    max_pixels: int = 8192 * 4320
    sandbox: bool = False
    stall_timeout: float | None = None  # seconds after which a silent stage hangs; 0: never, None: generous, by the size of frames


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(_Part):
    """Several devices or machines: `ray` asks for them, and so does naming a cluster (`ray_address`; None: this machine) or `devices`.

    One worker a GPU, or `cpus_per_worker` cores each; `devices` names them instead. `ship` sends parts of the input and the results
    through Ray, for machines that do not see the files. `lease_s`: after so long, another worker is set on a segment too.
    """

    ray: bool = False
    ray_address: str | None = None
    cpus_per_worker: int = 1
    devices: tuple[str, ...] = ()
    ship: bool = False
    lease_s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.devices or self.ray_address is not None:
            object.__setattr__(self, "ray", True)


@dataclass(frozen=True, kw_only=True)
class JobOptions(_Part):
    """A whole job's options in six parts; `with_changes` takes any part's field by its own name."""

    model: ModelOptions = field(default_factory=ModelOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    time: TimeRange = field(default_factory=TimeRange)
    fidelity: Fidelity = field(default_factory=Fidelity)
    execution: Execution = field(default_factory=Execution)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def with_changes(self, **changes: Any) -> JobOptions:
        """The same with some fields changed, each named as in its part: `scale=2, start="0:01:30.5", fps="24000/1001"`.

        An unknown name, a value of the wrong type and one that is none of the field's choices are OptionErrors that say what fits.
        """
        parts: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name not in _PART_OF:
                raise OptionError(f"no option {name!r}; there are: {', '.join(sorted(_PART_OF))}")
            parts.setdefault(_PART_OF[name], {})[name] = value
        return replace(self, **{part: replace(getattr(self, part), **values) for part, values in parts.items()})

    def as_json(self) -> dict[str, Any]:
        """Plain values for the journal; times as "numerator/denominator"."""
        return {part: _plain(values) for part, values in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """Choices settled once at the start of a job, kept in its journal, obeyed by resumed runs and by workers, so that results are equal."""

    model: str  # resolved name ("auto" never stands here) or "weights"
    engine: str  # "nearest", "native", "torch", "openvino", "accelerator"
    device: str = "cpu"
    dtype: str = "float32"
    layout: Literal["nchw", "nhwc"] = "nhwc"
    batch_size: int = 1
    strip_rows: int = 0  # 0: whole frames
    threads: int = 1
    compile: bool = False
    cuda_graph: bool = False
    segment_frames: int = 0  # 0: one segment
    weights: str | None = None  # the file, where model is "weights"
    weights_sha256: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def refuse_scale_beside_size(given: Mapping[str, Any]) -> None:
    """An OptionError where somebody asks for both by name: --size picks the network's scale itself, unless one's own weights have one."""
    if given.get("size") is not None and "scale" in given and given.get("weights") is None:
        raise OptionError(f"--size {given['size']} picks the network's scale itself: leave out --scale {given['scale']}, or --size")


def _settled(name: str, kind: Any, value: object) -> object:
    """A field's value as its type hint has it. OptionError where it does not fit."""
    plain = kind
    if NoneType in get_args(kind):
        if value is None:
            return None
        (plain,) = (one for one in get_args(kind) if one is not NoneType)
    try:
        if get_origin(plain) is Literal:
            return _one_of(get_args(plain), value)
        if plain in _PARTS.values():
            return _instance(plain, value)
        return (_BY_NAME.get(name) or _BY_KIND[get_origin(plain) or plain])(value)
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from None


def _one_of(choices: tuple[str, ...], value: object) -> str:
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{value!r} is none of {', '.join(choices)}")
    return value


def _instance(kind: type, value: object) -> object:
    if not isinstance(value, kind):
        raise OptionError(f"{value!r} is no {kind.__name__}; single options are given by `with_changes`")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{value!r} is neither True nor False")
    return value


def _whole(value: Any) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise OptionError(f"{value!r} is no whole number")


def _number(value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise OptionError(f"{value!r} is no number")
    return value if isinstance(value, int | float) else float(value)


def _text(value: object) -> str:
    told = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(told, str):
        raise OptionError(f"{value!r} is no text")
    if "\0" in told:
        raise OptionError(f"{told!r} holds a null byte, which neither a name nor a path may")
    return told


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if not isinstance(value, list | tuple):
        raise OptionError(f"{value!r} is no list of names")
    return tuple(map(str, value))


def _pairs(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{value!r} is no mapping of names to values")
    return {str(key): str(item) for key, item in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Fraction) else value


_PARTS = {
    "model": ModelOptions,
    "encode": EncodeOptions,
    "time": TimeRange,
    "fidelity": Fidelity,
    "execution": Execution,
    "cluster": ClusterOptions,
}
_PART_OF = {f.name: part for part, cls in _PARTS.items() for f in fields(cls)}
_BY_KIND: Final[Mapping[Any, Callable[[Any], object]]] = MappingProxyType(
    {bool: _truth, int: _whole, float: _number, str: _text, Fraction: seconds_of, tuple: _texts, Mapping: _pairs}
)
_BY_NAME: Final[Mapping[str, Callable[[Any], object]]] = MappingProxyType({"fps": rate_of, "device": str})  # a torch.device is taken too
