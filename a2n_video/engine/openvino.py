"""The OpenVINO engine: the rewritten network compiled for the CPU, colour in torch. The only user of openvino.

Whole frames only: what does not fit goes to torch in strips, decided by size beforehand (select.py).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from a2n_video.engine.color import ColorConverter, enlarge_alpha
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.engine.worker import WorkerEngine
from a2n_video.errors import MissingDependencyError
from a2n_video.net.fuse import FusedA2N, fuse
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
        raise MissingDependencyError("OpenVINO is not installed; pip install 'a2n-video[openvino]', or use --engine torch") from error
    return openvino


def converted(net: FusedA2N, shape: Sequence[int]) -> openvino.Model:
    """The network as an OpenVINO graph for input (N, 3, H, W); -1 is any size."""
    ov = _openvino()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own use of torch.jit
        graph = ov.convert_model(net, example_input=torch.rand(1, 3, 32, 48))
    graph.reshape(ov.PartialShape(list(shape)))
    return graph


class OpenVINOCompute:
    """Rows -> rows through an OpenVINO graph; see `WorkerEngine`."""

    def __init__(self, model: A2N, geometry: Geometry, plan: ExecutionPlan) -> None:
        ov = _openvino()
        torch.set_num_threads(plan.threads)  # of this thread's OpenMP team, for colour
        self._scale = geometry.scale
        self._source = ColorConverter(geometry.source, geometry.color)
        self._target = ColorConverter(geometry.target, geometry.color)
        graph = converted(fuse(model), (-1, 3, geometry.source.height, geometry.source.width))
        config = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[plan.dtype],
            "INFERENCE_NUM_THREADS": plan.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._request = ov.Core().compile_model(graph, "CPU", config).create_infer_request()

    def __call__(self, rows: Rows) -> Rows:
        with torch.inference_mode():
            source = torch.from_numpy(rows)
            rgb = self._infer(self._source.to_rgb(source))
            alpha = self._source.alpha(source)
            return self._target.to_rows(rgb, None if alpha is None else enlarge_alpha(alpha, self._scale)).numpy()

    def recoveries(self) -> int:
        return 0

    def _infer(self, rgb: Tensor) -> Tensor:
        """RGB to RGB; the result is the request's own memory, good until the next call."""
        self._request.infer([rgb.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(self._request.get_output_tensor().data)


def open_openvino_engine(model: A2N, geometry: Geometry, plan: ExecutionPlan) -> WorkerEngine:
    """An engine for a loaded model as the plan says."""
    return WorkerEngine(geometry, plan.batch_size, lambda: OpenVINOCompute(model, geometry, plan))
