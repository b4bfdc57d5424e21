"""The binding: loads the library, hands it weights, runs frames. The only user of ctypes beside the VapourSynth side."""

from __future__ import annotations

import ctypes
from functools import cache
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2n_video.engine.native import library_path
from a2n_video.errors import MissingDependencyError
from a2n_video.net.model import A2N, AttentionInAttentionBlock


class _Config(ctypes.Structure):
    """a2n_config of native.h."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("scale", "features", "up_features", "blocks", "hidden", "paper_head")),
        ("temperature", ctypes.c_float),
    )


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        raise MissingDependencyError("the network's own code was not built (pip install needs a C compiler for it); use another engine")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library = ctypes.CDLL(str(path))
    library.a2n_find_build.restype = library.a2n_open.restype = pointer
    library.a2n_lanes.argtypes = [pointer]
    library.a2n_open.argtypes = [pointer, pointer, pointer, number]
    library.a2n_bytes.argtypes = [pointer, pointer, number, number]
    library.a2n_bytes.restype = ctypes.c_size_t
    library.a2n_run.argtypes = [pointer, pointer, pointer, pointer, number, number]
    library.a2n_close.argtypes = [pointer, pointer]
    return library


class Network:
    """A network's weights in the library's hands, and its threads. Used by one thread at a time.

    `lanes` asks for a width of vectors (floats in each), for tests; 0 is what this processor runs fastest. MissingDependencyError where the
    library is not there, ValueError for a width that does not run here, MemoryError.
    """

    def __init__(self, model: A2N, threads: int, lanes: int = 0) -> None:
        self._library = _library()
        self._build = self._library.a2n_find_build(lanes)
        if not self._build:
            raise ValueError(f"vectors of {lanes} floats do not run on this processor")
        self.scale = model.config.scale
        self.lanes = int(self._library.a2n_lanes(self._build))
        tensors = [tensor.detach().float().contiguous() for tensor in _tensors(model)]
        addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self._network = self._library.a2n_open(self._build, ctypes.byref(_config(model)), addresses, threads)
        if not self._network:
            raise MemoryError("no memory or threads for the network")

    def bytes_for(self, height: int, width: int) -> int:
        """What its maps take for a frame of that size, beside the frame and its result."""
        return int(self._library.a2n_bytes(self._build, self._opened(), height, width))

    def run(self, rgb: Tensor, result: Tensor) -> None:
        """One frame: RGB (3, H, W) in 0..1 to (3, scale*H, scale*W), both float32, contiguous, on the CPU; nothing is clamped.

        The GIL is not held meanwhile. MemoryError leaves the network as it was. ValueError for other tensors, and once it is closed.
        """
        _, height, width = rgb.shape
        fit = all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in (rgb, result))
        if not fit or len(rgb) != 3 or tuple(result.shape) != (3, height * self.scale, width * self.scale):
            raise ValueError(f"{tuple(rgb.shape)} of {rgb.dtype} does not go to {tuple(result.shape)} of {result.dtype}")
        if self._library.a2n_run(self._build, self._opened(), rgb.data_ptr(), result.data_ptr(), height, width):
            raise MemoryError(f"no memory for the maps of a frame of {width}x{height}")

    def _opened(self) -> int:
        if self._network is None:
            raise ValueError("the network is closed")
        return int(self._network)

    def close(self) -> None:
        """End its threads and give its memory back; idempotent."""
        network, self._network = self._network, None
        if network:
            self._library.a2n_close(self._build, network)


def _config(model: A2N) -> _Config:
    c = model.config
    hidden = max(1, c.n_features // c.reduction)
    return _Config(c.scale, c.n_features, c.n_upsample_features, c.n_blocks, hidden, c.head == "paper", c.temperature)


def _tensors(model: A2N) -> list[Tensor]:
    """In the order of weights.h's `read_weights`."""
    blocks = [block for block in model.AAB_trunk if isinstance(block, AttentionInAttentionBlock)]
    head: list[nn.Conv2d] = [model.conv_last]
    if model.config.head == "paper":
        stages = [(model.upconv1, model.att1.conv, model.HRconv1)]
        if model.config.scale == 4:
            stages.append((model.upconv2, model.att2.conv, model.HRconv2))
        head = [*chain.from_iterable(stages), model.conv_last]
    return [
        *_with_bias(model.conv_first),
        *chain.from_iterable(_of_block(block) for block in blocks),
        *_with_bias(model.trunk_conv),
        *chain.from_iterable(_with_bias(conv) for conv in head),
    ]


def _with_bias(conv: nn.Conv2d) -> list[Tensor]:
    assert conv.bias is not None
    return [conv.weight, conv.bias]


def _of_block(block: AttentionInAttentionBlock) -> list[Tensor]:
    branch, other = block.attention, block.non_attention.weight
    gates = [layer.weight for layer in block.ADM if isinstance(layer, nn.Linear)]
    whole = other if other.shape[-1] == 3 else F.pad(other, (1, 1, 1, 1))
    rest = [branch.k1.weight, *_with_bias(branch.k2), branch.k3.weight, branch.k4.weight, whole]
    return [block.conv_first.weight, *gates, *rest, block.conv_last.weight]
