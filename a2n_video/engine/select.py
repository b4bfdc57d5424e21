"""Settle which engine runs a job, and open it. Nothing heavy is imported before it is needed: `nearest` works without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from a2n_video.engine.native import has_native
from a2n_video.engine.owned import OwnedEngine, Threaded
from a2n_video.engine.protocol import Engine, Geometry
from a2n_video.errors import DeviceError, MissingDependencyError, OptionError, WeightsError
from a2n_video.net.catalog import AUTO, NEAREST, SCALES, find_model, resolve_model, weights_sha256
from a2n_video.options import ExecutionPlan, ModelOptions

if TYPE_CHECKING:
    from a2n_video.net.model import A2N

DEFAULT_SCALE: Final = 2
ACCELERATORS: Final = ("cuda", "xpu")
_CPU_ENGINES: Final = ("native", "torch", "openvino")
# Pixels of source that a batch should have before it grows: enough work to hide the cost of starting it.
_CPU_BATCH_PIXELS: Final = 1 << 16
_ACCELERATOR_BATCH_PIXELS: Final = 1 << 20
_MAX_BATCH: Final = 8
_MOST_THREADS: Final = 1024  # each has buffers of its own
# OpenVINO and the native network keep maps of the whole frame, and Linux kills what grows too large: a frame whose maps would not fit
# goes to torch in strips, decided beforehand. Bytes a pixel and some room: OpenVINO took 832 between 320x180 and 1280x720 (x2, bfloat16),
# the native network has four maps of 40 channels, 640, and the frame and its result. What each of many threads takes besides depends
# on the network, which is not loaded yet: the native engine looks again, exactly, and goes in strips where it must.
_WHOLE_FRAME_BYTES_PER_PIXEL: Final = 1100
# Of a frame that waits in a batch, and of its result: RGB in float32 and samples, of two batches under way.
_WAITING_BYTES_PER_PIXEL: Final = 32
WHOLE_FRAME_MAX_PIXELS: Final = 4096 * 2304
# Bytes of maps a pixel, at most, in torch: where this is far from the free memory, nothing needs to be probed.
_TORCH_BYTES_PER_PIXEL: Final = 2048
_DTYPES: Final = {
    "native": ("float32",),
    "torch": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
    "accelerator": ("float32", "float16", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Device:
    """Somewhere a network can run."""

    name: str  # as --device takes it
    description: str

    def __str__(self) -> str:
        return f"{self.name:8} {self.description}"


def available_devices() -> list[Device]:
    """The accelerators torch sees, then the CPU."""
    import torch

    found = []
    for kind in ACCELERATORS:
        module = getattr(torch, kind)
        if module.is_available():
            found += [Device(name=f"{kind}:{i}", description=module.get_device_name(i)) for i in range(module.device_count())]
    extras = [name for name, there in (("native network", has_native()), ("OpenVINO", has_openvino())) if there]
    return [*found, Device(name="cpu", description=", ".join([f"{_cores()} cores", _cpu_dtype(), *extras]))]


def has_openvino() -> bool:
    """Whether the extra `openvino` is installed."""
    return find_spec("openvino") is not None


def resolve_plan(options: ModelOptions, geometry: Geometry) -> ExecutionPlan:
    """Settle engine, device, dtype, batch, strips and threads for one geometry.

    UnknownModelError, WeightsError, DeviceError (no such device), OptionError (what does not go together),
    MissingDependencyError (OpenVINO asked for and not installed). Neither torch nor weights are loaded for `nearest`.
    """
    check_numbers(options)
    if options.weights is None and NEAREST in (options.model, options.engine):
        return _nearest_plan(options)
    model, digest = _resolve_weights(options, geometry.scale)
    device = _resolve_device("cpu" if _means_cpu(options) else options.device)
    engine = _resolve_engine(options, device, geometry)
    pixels = geometry.source.width * geometry.source.height
    per_batch = _ACCELERATOR_BATCH_PIXELS if engine == "accelerator" else _CPU_BATCH_PIXELS
    plan = ExecutionPlan(
        model=model,
        weights=options.weights,
        weights_sha256=digest,
        engine=engine,
        device=device,
        dtype=_resolve_dtype(options, engine),
        layout="nchw" if engine == "openvino" else "nhwc",
        batch_size=options.batch_size or max(1, min(_MAX_BATCH, -(-per_batch // pixels))),
        strip_rows=_strip_rows(geometry) if engine == "torch" else 0,
        threads=options.threads or _cores(),
        compile=options.compile == "on",
        cuda_graph=options.cuda_graph,
    )
    if engine == "accelerator":
        return _with_timed_layout(plan, geometry)
    return _fitted(plan, geometry) if engine == "torch" else plan


def open_engine(plan: ExecutionPlan, geometry: Geometry) -> Engine:
    """The engine a plan names, ready for batches; the caller closes it, or lets it go.

    WeightsError if the weights are not those of the plan; DeviceError if the device cannot be had.
    """
    if plan.engine == NEAREST:
        from a2n_video.engine.nearest import NearestEngine

        return NearestEngine(geometry, plan.batch_size)
    return OwnedEngine(_open_threaded(plan, geometry))


def _open_threaded(plan: ExecutionPlan, geometry: Geometry) -> Threaded:
    model = _planned_model(plan, geometry)
    if plan.engine == "native":
        from a2n_video.engine.native.engine import open_native_engine

        return open_native_engine(model, geometry, plan)
    if plan.engine == "openvino":
        from a2n_video.engine.openvino import open_openvino_engine

        return open_openvino_engine(model, geometry, plan)
    if plan.engine == "accelerator":
        from a2n_video.engine.accelerator import open_accelerator_engine

        return open_accelerator_engine(model, geometry, plan)
    from a2n_video.engine.cpu import open_cpu_engine

    return open_cpu_engine(model, geometry, plan)


def _planned_model(plan: ExecutionPlan, geometry: Geometry) -> A2N:
    from a2n_video.net.weights import load_model

    source = plan.weights or str(find_model(plan.model, geometry.scale).path)
    if plan.weights_sha256 not in (None, weights_sha256(source)):
        raise WeightsError(
            f"{source}: not the weights this job was planned with (SHA-256 differs); put the old file back, or restart the job"
        )
    return load_model(source, geometry.scale)


def _with_timed_layout(plan: ExecutionPlan, geometry: Geometry) -> ExecutionPlan:
    """The plan with the memory layout that its accelerator runs faster in: which one that is differs between cards and drivers."""
    from a2n_video.engine.accelerator import fastest_layout

    return replace(plan, layout=fastest_layout(_planned_model(plan, geometry), geometry, plan))


def _strip_rows(geometry: Geometry) -> int:
    from a2n_video.engine.cpu import cpu_strip_rows

    return cpu_strip_rows(geometry.source.width)


def _fitted(plan: ExecutionPlan, geometry: Geometry) -> ExecutionPlan:
    """The plan with batch and strips that fit the free memory; probed only where that is in doubt."""
    from a2n_video.engine.footprint import fitted
    from a2n_video.engine.host_memory import free_host_bytes

    free = free_host_bytes()
    at_most = geometry.source.width * geometry.source.height * plan.batch_size * _TORCH_BYTES_PER_PIXEL
    return plan if at_most < free // 4 else fitted(plan, _planned_model(plan, geometry), geometry, free)


def _fits_whole(engine: str, options: ModelOptions, geometry: Geometry) -> bool:
    """Whether maps of whole frames fit: of a batch's frames at once in OpenVINO, of one after the other in the native network."""
    from a2n_video.engine.host_memory import free_host_bytes

    pixels = geometry.source.width * geometry.source.height
    beside = (options.batch_size or 1) - 1
    each = _WAITING_BYTES_PER_PIXEL * (1 + geometry.scale**2) if engine == "native" else _WHOLE_FRAME_BYTES_PER_PIXEL
    need = pixels * (_WHOLE_FRAME_BYTES_PER_PIXEL + beside * each)
    return pixels <= WHOLE_FRAME_MAX_PIXELS and need <= free_host_bytes() // 2


def check_numbers(options: ModelOptions) -> None:
    """OptionError for a scale, batch size or number of threads that cannot be, or weights beside a model; WeightsError for a file of
    none or of another scale. Before anything is opened or promised.
    """
    if options.scale not in (None, *SCALES):
        raise OptionError(f"--scale {options.scale}: the scale is 2, 3 or 4")
    for name in ("batch_size", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} {value}: at least 1")
    if options.threads is not None and options.threads > (most := max(_MOST_THREADS, _cores())):
        raise OptionError(f"--threads {options.threads}: at most {most}; more than this machine's {_cores()} cores make nothing faster")
    if options.weights is not None:
        _check_weights(options, options.weights)


def _check_weights(options: ModelOptions, weights: str) -> None:
    beside = f"--model {options.model}" if options.model != AUTO else f"--engine {NEAREST}" if options.engine == NEAREST else None
    if beside is not None:
        raise OptionError(f"{beside} beside --weights {weights}: the file is a network itself; leave one of them away")
    settled_scale(options)


def settled_scale(options: ModelOptions) -> int:
    """The network's factor: of weights the file's own. WeightsError for a file that is none, or of another scale than was asked for."""
    if options.weights is None:
        return DEFAULT_SCALE if options.scale is None else options.scale
    from a2n_video.net.weights import weights_scale

    return weights_scale(Path(options.weights), options.scale)


def _nearest_plan(options: ModelOptions) -> ExecutionPlan:
    if options.engine not in ("auto", NEAREST):
        raise OptionError(f"--engine {options.engine}: model {NEAREST!r} has an engine of its own; leave --engine away")
    return ExecutionPlan(model=NEAREST, engine=NEAREST, batch_size=options.batch_size or 1)


def _resolve_weights(options: ModelOptions, scale: int) -> tuple[str, str]:
    """The model's name and the digest of its file."""
    if options.weights is not None:
        return "weights", weights_sha256(options.weights)
    name = resolve_model(options.model, scale)
    path = find_model(name, scale).path
    if path is None:
        raise OptionError(f"--model {name} has no network that another engine could run")
    return name, weights_sha256(path)


def _means_cpu(options: ModelOptions) -> bool:
    """Whether what was asked for runs on a CPU only, though no device was named."""
    return options.device is None and (options.engine in _CPU_ENGINES or options.dtype == "int8")


def _resolve_device(name: str | None) -> str:
    """A device that exists; None is the first accelerator, else the CPU."""
    if name == "cpu":
        return name
    import torch

    usable = {kind: getattr(torch, kind).device_count() for kind in ACCELERATORS if getattr(torch, kind).is_available()}
    if name is None:
        return _usable_here(next(iter(usable), "cpu"))
    kind, _, index = name.partition(":")
    if kind not in (*ACCELERATORS, "cpu") or (index and not index.isdecimal()):
        raise DeviceError(f"--device {name}: no such kind of device; there are: {', '.join((*ACCELERATORS, 'cpu'))}")
    if kind == "cpu":
        return kind
    if int(index or 0) >= usable.get(kind, 0):
        raise DeviceError(f"--device {name}: torch sees {usable.get(kind, 0)} of that kind; see --list-devices, or use --device cpu")
    return _usable_here(name)


def _usable_here(device: str) -> str:
    """The device; DeviceError where the process that this one was forked off has used it: drivers allow no second use then."""
    import torch

    if device != "cpu" and getattr(torch, device.partition(":")[0])._is_in_bad_fork():
        raise DeviceError(
            f"--device {device}: the process that this one was forked off has used it; start processes with multiprocessing's 'spawn', "
            "or use --device cpu"
        )
    return device


def _resolve_engine(options: ModelOptions, device: str, geometry: Geometry) -> str:
    engine = options.engine
    if engine == "native" and not has_native():
        raise MissingDependencyError(
            "--engine native: it was not built, as pip install does where it finds a C compiler; use another engine"
        )
    if engine == "openvino" and not has_openvino():
        raise MissingDependencyError("--engine openvino: OpenVINO is not installed; pip install 'a2n-video[openvino]'")
    if (engine == "accelerator") != (device != "cpu") and engine != "auto":
        raise OptionError(f"--engine {engine} does not run on device {device}; leave one of them away")
    if engine not in ("auto", "openvino", "native"):
        return engine
    if device != "cpu":
        return "accelerator"
    wanted = _fastest_cpu_engine(options.dtype) if engine == "auto" else engine
    return wanted if _fits_whole(wanted, options, geometry) else "torch"


def _fastest_cpu_engine(dtype: str) -> str:
    """The native network where float32 will do, else OpenVINO, else torch.

    In float32 it does a quarter of the multiplications in the trunk, which is more than the twofold rate that AVX-512 has for bfloat16; AMX
    has eight times that rate, so there OpenVINO goes first.
    """
    from a2n_video.engine.cpu import has_amx

    native = has_native() and (dtype == "float32" or (dtype == "auto" and not (has_amx() and has_openvino())))
    return "native" if native else "openvino" if has_openvino() else "torch"


def _resolve_dtype(options: ModelOptions, engine: str) -> str:
    """What was asked for, or the engine's best; float32 too where the native network was asked for and torch takes its place."""
    if options.dtype == "auto":
        return "float16" if engine == "accelerator" else "float32" if "native" in (engine, options.engine) else _cpu_dtype()
    if options.dtype not in _DTYPES[engine]:
        why = ", which frames of this size need," if engine == "torch" and options.engine != "torch" and has_openvino() else ""
        raise OptionError(f"--dtype {options.dtype}: engine {engine}{why} computes in {', '.join(_DTYPES[engine])}")
    return options.dtype


def _cpu_dtype() -> str:
    from a2n_video.engine.cpu import has_bfloat16

    return "bfloat16" if has_bfloat16() else "float32"


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
