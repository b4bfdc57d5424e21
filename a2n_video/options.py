"""Everything a job can be told: one frozen object for the CLI, Python, the journal and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal

from a2n_video.errors import OptionError

Deinterlace = Literal["auto", "frame", "field", "ivtc", "off"]
EncoderBackend = Literal["pyav", "ffmpeg"]
PipeFormat = Literal["y4m", "nut", "mkv"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
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
class EncodeOptions:
    """How the picture is encoded; None means: chosen from the container and the depth."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    encoder_backend: EncoderBackend = "pyav"
    pipe_format: PipeFormat = "y4m"


@dataclass(frozen=True, kw_only=True)
class TimeRange:
    """Which part of the source: times in seconds from its first frame; `end` is exclusive."""

    start: Fraction | None = None
    end: Fraction | None = None
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What must survive, and how the picture is read."""

    keep_all: bool = False
    reencode_audio: str | None = None
    deinterlace: Deinterlace = "auto"
    size: str | None = None
    fps: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class Execution:
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
class ClusterOptions:
    """Several devices or machines: `ray` asks for them, `ray_address` names a cluster (None: this machine).

    One worker a GPU, or `cpus_per_worker` cores each; `devices` names them instead. `ship` sends parts of the input and the results
    through Ray, for machines that do not see the files. `lease_s`: after so long, another worker is set on a segment too.
    """

    ray: bool = False
    ray_address: str | None = None
    cpus_per_worker: int = 1
    devices: tuple[str, ...] = ()
    ship: bool = False
    lease_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """A whole job's options in six parts; `with_changes` takes any part's field by its own name."""

    model: ModelOptions = field(default_factory=ModelOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    time: TimeRange = field(default_factory=TimeRange)
    fidelity: Fidelity = field(default_factory=Fidelity)
    execution: Execution = field(default_factory=Execution)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def with_changes(self, **changes: Any) -> JobOptions:
        """The same with some fields changed, each named as in its part (`scale=2, crf=18`); an unknown name is an OptionError."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name not in _PART_OF:
                raise OptionError(f"no option {name!r}; there are: {', '.join(sorted(_PART_OF))}")
            parts.setdefault(_PART_OF[name], {})[name] = value
        return replace(self, **{part: replace(getattr(self, part), **values) for part, values in parts.items()})

    def as_json(self) -> dict[str, Any]:
        """Plain values for the journal; times as "numerator/denominator"."""
        return {part: _plain(values) for part, values in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Any]]) -> JobOptions:
        """The inverse of `as_json`."""
        changes = {name: value for part in data.values() for name, value in part.items()}
        changes["devices"] = tuple(changes["devices"])
        for name in ("start", "end", "fps"):
            if changes[name] is not None:
                changes[name] = Fraction(changes[name])
        return cls().with_changes(**changes)


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
