"""Write a model as ONNX: any size of frame, RGB in 0..1 in and out, as VapourSynth's vs-mlrt and other runtimes take it.

python -m a2n_video.tools.export --model a2n --scale 2 -o a2n_x2.onnx
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from a2n_video.errors import MissingDependencyError, OptionError
from a2n_video.net.fuse import fuse
from a2n_video.net.model import A2N
from a2n_video.net.weights import load_model
from a2n_video.tools.results import check_output, write_file
from a2n_video.tools.shell import guarded

PROG: Final = "a2n_video.tools.export"
OPSET: Final = 17
LAST_OPSET: Final = 23  # the last that the tracing exporter writes; beyond, it prints its whole graph and gives up
INPUT, OUTPUT = "input", "output"
_AXES: Final = {INPUT: {0: "batch", 2: "height", 3: "width"}, OUTPUT: {0: "batch", 2: "out_height", 3: "out_width"}}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("writing ONNX needs the package onnx; pip install 'a2n-video[export]'") from error
    return onnx


def onnx_model(model: A2N, *, opset: int = OPSET, fused: bool = True) -> Any:
    """The network as a checked onnx.ModelProto: `input` (batch, 3, height, width) to `output`, float32 RGB, black 0 and white 1.

    `fused` writes the rewritten network (the same numbers, fewer nodes). MissingDependencyError without onnx; OptionError for
    an opset that cannot express it.
    """
    onnx = _onnx()
    if not OPSET <= opset <= LAST_OPSET:
        raise OptionError(f"--opset {opset}: from {OPSET} to {LAST_OPSET}")
    exported = onnx.load_model_from_string(_traced(fuse(model) if fused else model, opset))
    onnx.checker.check_model(exported, full_check=True)
    return exported


def _traced(network: nn.Module, opset: int) -> bytes:
    """What torch writes; an OptionError where this torch cannot write the opset."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(sys.stderr), torch.no_grad():
        # The exporter that traces needs no further package (the other wants onnxscript) and keeps every size open; it
        # announces its own end and warns of shapes that this network does not depend on.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (torch.rand(1, 3, 16, 24, dtype=torch.float32),),
                buffer,  # type: ignore[arg-type]  # the tracing exporter takes one
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=_AXES,
                dynamo=False,
            )
        except (ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OptionError(f"--opset {opset}: torch {torch.__version__} cannot write it ({reason}); try --opset {OPSET}") from error
    return buffer.getvalue()


def write(model: A2N, path: Path, *, opset: int = OPSET, metadata: dict[str, str] | None = None) -> None:
    """Write `onnx_model` to a file, with `metadata` beside what it says of itself. OutputError if the file cannot be written."""
    exported = onnx_model(model, opset=opset)
    about = {"scale": str(model.config.scale), "range": "RGB 0..1", "made_by": "a2n-video", **(metadata or {})}
    for key, value in about.items():
        entry = exported.metadata_props.add()
        entry.key, entry.value = key, value
    write_file(path, exported.SerializeToString())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {PROG}", description="Write a model as ONNX (RGB 0..1, any size).")
    parser.add_argument("--model", default="auto", help="a bundled model (default: auto)")
    parser.add_argument("--weights", metavar="FILE", help="weights of your own instead: .safetensors or .pt")
    parser.add_argument("--scale", type=int, default=None, help="2, 3 or 4 (default: 2, or what the weights are for)")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"ONNX operator set, {OPSET} to {LAST_OPSET} (default: {OPSET})")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.onnx")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return guarded(PROG, lambda: _export(args))


def _export(args: argparse.Namespace) -> None:
    check_output(args.output, (".onnx",), [Path(args.weights)] if args.weights else [], overwrite=args.overwrite)
    model = load_model(args.weights or args.model, args.scale)
    write(model, args.output, opset=args.opset, metadata={"model": Path(args.weights).name if args.weights else args.model})
    print(f"{args.output}: x{model.config.scale}, input {INPUT!r} (batch, 3, height, width) RGB 0..1, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
