"""The OpenVINO engine: the rewritten network compiled for the CPU, colour in torch. The only user of openvino.

Whole frames only: what does not fit goes to torch in strips, decided by size beforehand (select.py).
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a2n_video.engine.color import ColorConverter, enlarge_alpha, finite
from a2n_video.engine.cpu import has_bfloat16, has_vnni, set_threads_here
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.engine.worker import WorkerEngine
from a2n_video.errors import MissingDependencyError
from a2n_video.net.fuse import bilinear, fuse
from a2n_video.net.graph import NARROW_WEIGHT_LEVELS, WEIGHT_LEVELS, ForCompiler
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan

if TYPE_CHECKING:
    import openvino


def _openvino() -> Any:
    # Imported plainly, OpenVINO starts threads and child processes that report its use over the network. Without the reporting
    # package it takes its own silent stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(_why_not(error)) from error
    return openvino


def _why_not(error: ImportError) -> str:
    if find_spec("openvino") is None:
        return "OpenVINO is not installed; pip install 'a2n-video[openvino]', or use --engine torch"
    reason = " ".join(str(error).split())
    return (
        f"OpenVINO is installed but cannot be loaded, as happens where another program's copy was loaded first: {reason}. "
        "Import openvino before whatever brings the other copy, or use --engine torch"
    )


def converted(net: nn.Module, shape: Sequence[int]) -> openvino.Model:
    """The network as an OpenVINO graph for input (N, 3, H, W); -1 is any size."""
    ov = _openvino()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own use of torch.jit
        graph = ov.convert_model(net, example_input=torch.rand(1, 3, 16, 24, dtype=torch.float32))
    graph.reshape(ov.PartialShape(list(shape)))
    return graph


def compiled(model: A2N, shape: Sequence[int], dtype: str, threads: int) -> openvino.CompiledModel:
    """The network without its skip (see `ForCompiler`), ready to run on the CPU; `threads` bounds it, so that decoder and encoder breathe.

    "int8" is 8 bits in the trunk's 3x3 convolutions, and elsewhere bfloat16 where the processor has it, else float32.
    """
    bfloat16 = dtype == "bfloat16" or (dtype == "int8" and has_bfloat16())
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    net = ForCompiler(fuse(model), int8=dtype == "int8", weight_levels=WEIGHT_LEVELS if has_vnni() else NARROW_WEIGHT_LEVELS)
    return _openvino().Core().compile_model(converted(net, shape), "CPU", config)


class OpenVINOCompute:
    """Rows -> rows through an OpenVINO graph; see `WorkerEngine`.

    Two requests take turns: while one is computed, this thread turns planes into RGB for the next and back for the one before.
    The graph has one fixed shape (a batch of any size costs speed); a short batch is filled up with its last frame.
    """

    def __init__(self, model: A2N, geometry: Geometry, plan: ExecutionPlan) -> None:
        set_threads_here(1)  # for colour: a team would spin beside OpenVINO's threads
        self._scale = geometry.scale
        self._batch_size = plan.batch_size
        self._source = ColorConverter(geometry.source, geometry.color, covers=geometry.target.alpha)
        self._target = ColorConverter(geometry.target, geometry.color)
        shape = (plan.batch_size, 3, geometry.source.height, geometry.source.width)
        graph = compiled(model, shape, plan.dtype, plan.threads)
        self._requests = deque(graph.create_infer_request() for _ in range(2))

    def start(self, rows: Rows) -> Callable[[], Rows]:
        with torch.inference_mode():
            source = torch.from_numpy(rows)
            filled = (
                torch.cat([source, source[-1:].expand(self._batch_size - len(source), -1)]) if len(source) < self._batch_size else source
            )
            rgb = self._source.to_rgb(filled).numpy()
            alpha = self._source.alpha(source)
        request = self._requests[0]
        self._requests.rotate(-1)
        request.start_async([rgb], share_inputs=True)
        return partial(self._finish, request, rgb[: len(rows)], alpha)

    def close(self) -> None:
        """The graph goes with this object."""

    def recoveries(self) -> int:
        return 0

    def _finish(self, request: openvino.InferRequest, source: Rows, alpha: Tensor | None) -> Rows:
        """`source` is the frames' RGB: the request reads it in place until now, and the skip is made of it, always in float32."""
        request.wait()
        with torch.inference_mode():
            correction = torch.from_numpy(request.get_output_tensor().data)[: len(source)]
            rgb = finite(bilinear(torch.from_numpy(source), self._scale).add_(correction))
            return self._target.to_rows(rgb, None if alpha is None else enlarge_alpha(alpha, self._scale)).numpy()


def open_openvino_engine(model: A2N, geometry: Geometry, plan: ExecutionPlan) -> WorkerEngine:
    """An engine for a loaded model as the plan says."""
    return WorkerEngine(geometry, plan.batch_size, lambda: OpenVINOCompute(model, geometry, plan))
