"""See inside the network: `attention` of every block, `ablation` of each, and `lam`, where a pixel looks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from a2n_video.errors import DeviceError
from a2n_video.tools import plots
from a2n_video.tools.results import check_output, described
from a2n_video.tools.shell import count, guarded, place, seconds

if TYPE_CHECKING:
    from a2n_video.net.model import A2N

PROG = "a2n_video.tools.look"


def parser() -> argparse.ArgumentParser:
    from a2n_video.tools.ablation import COLUMNS as ABLATION
    from a2n_video.tools.ablation import SWITCHES
    from a2n_video.tools.attention import COLUMNS as ATTENTION

    result = argparse.ArgumentParser(prog=f"python -m {PROG}", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)

    def command(name: str, columns: Mapping[str, str] | None, told: str) -> argparse.ArgumentParser:
        epilog = f"Columns of the .csv beside the picture: {described(columns)}." if columns else None
        return commands.add_parser(name, help=told, description=told, epilog=epilog)

    attention = command("attention", ATTENTION, "maps and weights of every block on a frame; for a video their course")
    attention.add_argument("source", type=Path, metavar="FRAME_OR_VIDEO")
    attention.add_argument("--at", type=seconds, metavar="TIME", help="the frame of the sheet (default: the middle of the video)")
    attention.add_argument("--frames", type=count, default=32, metavar="N", help="frames of the course, evenly spread (default 32)")
    ablation = command("ablation", ABLATION, "PSNR change with each block's attention switched off in turn")
    ablation.add_argument("source", type=Path, metavar="FOLDER", help="pictures at full size")
    ablation.add_argument("--off", action="append", choices=tuple(SWITCHES), help="what is switched off; may be repeated (default: all)")
    lam = command("lam", None, "which source pixels a window of the result was made from")
    lam.add_argument("source", type=Path, metavar="FRAME_OR_VIDEO")
    lam.add_argument("--at", type=place, metavar="X,Y", help="the pixel, as stored, in the window's middle (default: the frame's)")
    lam.add_argument("--time", type=seconds, metavar="TIME", help="of a video, the frame shown then (default: the middle)")
    lam.add_argument("--window", type=count, default=16, metavar="N", help="side of the window in the result's pixels (default 16)")
    lam.add_argument("--context", type=count, default=64, metavar="N", help="side of the source crop that is looked at (default 64)")
    lam.add_argument("--steps", type=count, default=50, metavar="N", help="steps of the path (default 50)")
    for each in (attention, ablation, lam):
        each.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE", help="PNG, JPEG, SVG or PDF, by its name")
        each.add_argument("--model", default="auto", help="a bundled model or a weights file (default: auto)")
        each.add_argument("--scale", type=int, help="of a bundled model (default 2)")
        each.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    work = {"attention": _attention, "ablation": _ablation, "lam": _lam}[arguments.command]

    def checked() -> None:
        check_output(arguments.output, plots.SUFFIXES, [arguments.source])
        plots.new_figure(1, 1)
        work(arguments)

    return guarded(PROG, checked)


def _model(arguments: argparse.Namespace) -> A2N:
    import torch

    from a2n_video.net.weights import load_model

    model = load_model(arguments.model, arguments.scale).requires_grad_(False)
    try:
        # This layout takes less than half the time of the other on a CPU.
        return model.to(arguments.device).to(memory_format=torch.channels_last)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {arguments.device}: {str(error).splitlines()[0]}; use --device cpu") from error


def _attention(arguments: argparse.Namespace) -> None:
    from a2n_video.tools.attention import attention_report

    for path in attention_report(arguments.source, _model(arguments), arguments.output, arguments.at, arguments.frames):
        print(path)


def _ablation(arguments: argparse.Namespace) -> None:
    from a2n_video.tools.ablation import SWITCHES, ablation_report

    for path in ablation_report(arguments.source, _model(arguments), arguments.output, arguments.off or list(SWITCHES)):
        print(path)


def _lam(arguments: argparse.Namespace) -> None:
    from a2n_video.tools.lam import LamOptions, lam_report

    options = LamOptions(at=arguments.at, window=arguments.window, context=arguments.context, time=arguments.time, steps=arguments.steps)
    found = lam_report(arguments.source, _model(arguments), arguments.output, options)
    print(f"{arguments.output}: diffusion index {found.diffusion:.2f}, the steps missed {found.gap:.1%} of the change")


if __name__ == "__main__":
    sys.exit(main())
