"""Weights files to networks: what a file holds is recognised from its tensors, and every network returned takes RGB in 0..1."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from a2n_video.errors import UnknownModelError, WeightsError
from a2n_video.net.catalog import NEAREST, find_model, resolve_model
from a2n_video.net.model import A2N, A2NConfig

Tensors = dict[str, Tensor]

EXPECTED: Final = "expected weights of an A2N: a .safetensors of this project, or a .pt with tensors conv_first.weight, AAB_trunk.N.*, ..."
# Under these a training checkpoint keeps its tensors.
WRAPPERS: Final = ("params_ema", "params", "state_dict", "model")
# What torch.load and safetensors raise on damaged, foreign or hostile files.
BROKEN_FILE: Final = (
    pickle.UnpicklingError,
    SafetensorError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    MemoryError,
)
# Another range of values changes nothing but these: biases shrink with it, what feeds a sigmoid or softmax from features grows.
BIASES: Final = re.compile(r"(conv_first|trunk_conv|upconv[12]|HRconv[12]|conv_last)\.bias")
GATES: Final = re.compile(r"AAB_trunk\.\d+\.(attention\.k2|ADM\.0)\.weight|att[12]\.conv\.weight")
RANGES: Final = (1.0, 255.0)
# A file is taken to be of the other scale only where that lies clearly nearer on the probe, and as near as only trained weights are:
# reference weights are off by 0.0004 to 0.0013, at the other scale by 1.09 to 4.6 times as much; plain bilinear by 0.0045.
CLEARLY: Final = 0.95
TRAINED: Final = 0.002
PITCH: Final = 0.9  # of the probe's waves


def load_model(name_or_path: str | Path, scale: int | None = None) -> A2N:
    """A network with weights, in float32 on the CPU, in eval mode, RGB 0..1 in and out.

    Takes a bundled name (or `auto`), a .safetensors of this project, the authors' .pt or the super-image port's. `scale` None takes
    the scale of the file, or 2 for a bundled name. UnknownModelError (a name), WeightsError (a file that is not what was expected,
    weights for another scale). `nearest` is no network: UnknownModelError.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and not _names_file(path):
        wanted = 2 if scale is None else scale
        model = find_model(resolve_model(name_or_path, wanted), wanted)
        if model.path is None:
            raise UnknownModelError(f"{NEAREST!r} repeats pixels and has no network to load; choose another model")
        path = model.path
    return load_file(path, scale)


def _names_file(path: Path) -> bool:
    """Whether a string means a file and not a model: a folder of a model's name does not hide the model."""
    return path.is_file() or len(path.parts) > 1 or path.suffix in {".safetensors", ".pt", ".pth", ".bin"}


def load_file(path: Path, scale: int | None = None) -> A2N:
    """A network from a weights file; see `load_model`."""
    tensors, metadata = read_tensors(path)
    recognised = recognise(tensors, path)
    check_shapes(tensors, recognised, path)
    stated = stated_config(metadata, recognised, path)
    config = stated or probed_config(tensors, recognised, scale)
    if scale not in (None, config.scale):
        raise WeightsError(f"{path}: these weights are for scale {config.scale}, not {scale}; give --scale {config.scale} or other weights")
    return build(tensors, config)


def weights_scale(path: Path, scale: int | None = None) -> int:
    """The scale of a weights file. WeightsError for whatever `load_file` refuses; a file is looked through once, until it changes."""
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    return _scale_in(path, scale, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=16)
def _scale_in(path: Path, scale: int | None, _content: tuple[int, ...]) -> int:
    return load_file(path, scale).config.scale


def save_model(model: A2N, path: Path, metadata: Mapping[str, str] | None = None, *, half: bool = False) -> None:
    """Write weights with their config. `half` stores convolution weights in float16, biases stay as they are."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.ndim == 4 else value for name, value in tensors.items()}
    save_file(tensors, path, {**(metadata or {}), "config": json.dumps(asdict(model.config))})


def build(tensors: Tensors, config: A2NConfig) -> A2N:
    """The network of `config` with these weights, rescaled to values 0..1."""
    unit = to_unit_range(tensors, config.rgb_range)
    with torch.device("meta"):
        model = A2N(replace(config, rgb_range=1.0))
    model.load_state_dict(unit, assign=True)
    return model.eval()


def to_unit_range(tensors: Tensors, rgb_range: float) -> Tensors:
    """Weights for RGB 0..1 from weights for 0..`rgb_range`; exact, since everything between is linear or homogeneous."""
    return {
        name: value / rgb_range if BIASES.fullmatch(name) else value * rgb_range if GATES.fullmatch(name) else value
        for name, value in tensors.items()
    }


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a file as float32, and its metadata. No code in the file runs. WeightsError for anything unexpected."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise WeightsError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    metadata: dict[str, str] = {}
    try:
        if start[8:9] == b"{":
            with safe_open(path, "pt") as opened:
                metadata = opened.metadata() or {}
                found: object = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        elif start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
            content = io.BytesIO(path.read_bytes())  # of a named file torch believes the suffix
            found = torch.load(content, map_location="cpu", weights_only=True)
        else:
            raise WeightsError(f"{path}: {EXPECTED}; found neither, {_describe(start)}")
        return _plain_tensors(found, path), metadata
    except WeightsError:
        raise
    except BROKEN_FILE as error:
        raise WeightsError(f"{path}: {EXPECTED}; found a file that is damaged or holds something else: {_short(error)}") from error


def _describe(start: bytes) -> str:
    return f"it starts with {start[:8]!r}" if start else "it is empty"


def _short(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) < 160 else line[:157] + "..."


def _plain_tensors(found: object, path: Path) -> Tensors:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: {EXPECTED}; found a {type(found).__name__}")
    tensors: Tensors = {}
    for key, value in found.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
            kind = f"{value.dtype} ({value.layout}) tensor" if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(f"{path}: {EXPECTED}; found {str(key)!r}, a {kind}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # repeated by its strides: terabytes of few bytes
            raise WeightsError(f"{path}: {EXPECTED}; found {str(key)!r} of {tuple(value.shape)}, more values than the file holds")
        plain = value.detach().to("cpu", torch.float32).contiguous()
        if not torch.isfinite(plain).all():
            raise WeightsError(f"{path}: {str(key)!r} holds values that are infinite or not a number; the file is damaged")
        tensors[str(key).removeprefix("module.")] = plain
    return tensors


def recognise(tensors: Tensors, path: Path) -> A2NConfig:
    """Widths, depth, kernel and head from the tensors' names and shapes.

    The scale of the paper's head for x2 and x3 looks alike: it is given as 2 here. The range is left at 1.
    """
    try:
        n_features = tensors["conv_first.weight"].shape[0]
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("AAB_trunk.")}
        kernel = tensors["AAB_trunk.0.non_attention.weight"].shape[-1]
        hidden = tensors["AAB_trunk.0.ADM.0.weight"].shape[0]
        last = tensors["conv_last.weight"].shape[0]
    except (LookupError, ValueError) as error:
        found = ", ".join(sorted(tensors)[:4]) or "no tensor"
        raise WeightsError(f"{path}: {EXPECTED}; found {len(tensors)} tensors ({found}, ...): {_short(error)}") from error
    paper = "upconv1.weight" in tensors
    try:
        return A2NConfig(
            scale=(4 if "upconv2.weight" in tensors else 2) if paper else math.isqrt(last // 3),
            n_features=n_features,
            n_upsample_features=tensors["upconv1.weight"].shape[0] if paper else A2NConfig.n_upsample_features,
            n_blocks=len(blocks),
            non_attention_kernel=1 if kernel == 1 else 3,
            head="paper" if paper else "pixelshuffle",
            reduction=max(1, n_features // max(1, hidden)),  # one of several that give this width
        )
    except ValueError as error:
        raise WeightsError(f"{path}: {EXPECTED}; found shapes that no A2N has: {error}") from error


def check_shapes(tensors: Tensors, config: A2NConfig, path: Path) -> None:
    """WeightsError unless names and shapes are exactly those of the network of `config`."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in A2N(config).state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected == found:
        return
    wrong = sorted(set(expected.items()) ^ set(found.items()))
    name = wrong[0][0]
    raise WeightsError(
        f"{path}: not a whole A2N, {len({n for n, _ in wrong})} tensors are wrong: "
        f"{name} expected {expected.get(name, 'not to be there')}, found {found.get(name, 'nothing')}"
    )


def stated_config(metadata: Mapping[str, str], recognised: A2NConfig, path: Path) -> A2NConfig | None:
    """The config a file of ours states, checked against its tensors; None if it states none."""
    if "config" not in metadata:
        return None
    try:
        values = json.loads(metadata["config"])
        config = A2NConfig(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata holds a config that is not ours: {_short(error)}") from error
    for item in fields(A2NConfig):
        value, default = getattr(config, item.name), item.default
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise WeightsError(f"{path}: {item.name} in its config is {value!r}, expected a {type(default).__name__}")
    if not (math.isfinite(config.rgb_range) and config.rgb_range > 0 and math.isfinite(config.temperature) and config.temperature > 0):
        raise WeightsError(f"{path}: rgb_range {config.rgb_range} and temperature {config.temperature} in its config must be above 0")
    alike = recognised.head == "paper" and config.scale in (2, 3) and recognised.scale == 2
    shown = replace(
        config,
        scale=2 if alike else config.scale,
        rgb_range=recognised.rgb_range,
        temperature=recognised.temperature,
        n_upsample_features=recognised.n_upsample_features,
        reduction=recognised.reduction if config.hidden == recognised.hidden else config.reduction,
    )
    if shown != recognised:
        raise WeightsError(f"{path}: its config and its tensors differ: stated {config}, found {recognised}")
    return config


def probed_config(tensors: Tensors, recognised: A2NConfig, wanted: int | None) -> A2NConfig:
    """Settle the range of values, and x2 against x3, by trying: nearest to bicubic on a smooth built-in picture wins."""
    scales = (2, 3) if recognised.head == "paper" and recognised.scale == 2 else (recognised.scale,)
    tried = [replace(recognised, scale=scale, rgb_range=value) for scale in scales for value in RANGES]
    errors = {config: probe_error(build(tensors, config)) for config in tried}
    best = min(tried, key=errors.__getitem__)
    fitting = [config for config in tried if config.scale == wanted]
    if not fitting:
        return best
    asked = min(fitting, key=errors.__getitem__)
    return best if errors[best] < min(TRAINED, CLEARLY * errors[asked]) else asked


def probe_picture(scale: int = 1, side: int = 48) -> Tensor:
    """A smooth picture, (1, 3, scale*side, scale*side) in 0..1: waves of 8 pixels and longer, sampled `scale` times as densely.

    So smooth that bicubic and any good network enlarge it alike; what differs most has the wrong range or scale.
    """
    places = (torch.arange(scale * side, dtype=torch.float32) + 0.5) / scale - 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    waves = ((0.31, 0.07, 0.3), (-0.11, 0.45, 1.1), (0.52, 0.38, 2.0), (0.05, 0.02, 0.5), (0.6, -0.45, 0.0))
    grey = 0.5 + torch.stack([0.09 * torch.sin(PITCH * (u * x + v * y) + phase) for u, v, phase in waves]).sum(dim=0)
    return torch.stack([grey, 0.05 + 0.8 * grey, 1 - grey])[None]


@torch.inference_mode()
def probe_error(model: A2N) -> float:
    """Root mean square distance from the true enlargement of the probe, without its edges."""
    scale = model.config.scale
    edge = 4 * scale
    error: Tensor = model(probe_picture()) - probe_picture(scale)
    return float(error[..., edge:-edge, edge:-edge].square().mean().sqrt())
