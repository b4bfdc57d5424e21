"""`python -m a2n_video.training data | train`."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from threading import Event
from typing import Any, Final

from a2n_video.tools.shell import guarded
from a2n_video.training.data import DataConfig, prepare
from a2n_video.training.train import TrainConfig, train

PROG: Final = "python -m a2n_video.training"


def add_fields(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """An option for each field of a config dataclass, its default as there; a tuple takes as many values."""
    for item in fields(config):
        if item.default is MISSING:
            continue
        kind = type(item.default)
        name = "--" + item.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=item.default)
        elif kind is tuple:
            of = type(item.default[0])
            shown = " ".join(map(str, item.default))
            parser.add_argument(
                name, type=of, nargs=len(item.default), default=item.default, metavar=of.__name__.upper(), help=f"default {shown}"
            )
        else:
            parser.add_argument(name, type=kind, default=item.default, metavar=kind.__name__.upper(), help=f"default {item.default}")


def taken(args: argparse.Namespace, config: type[Any]) -> dict[str, Any]:
    names = {item.name for item in fields(config)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items() if name in names}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="make pairs of patches from a folder of pictures and videos")
    data.add_argument("pictures", type=Path)
    data.add_argument("folder", type=Path)
    data.add_argument("--workers", type=int)
    add_fields(data, DataConfig)
    train = commands.add_parser("train", help="train a network on such pairs; goes on by itself from the run's checkpoint")
    train.add_argument("pairs", type=Path, nargs="+", help="folders of pairs of one scale, taken together")
    train.add_argument("run", type=Path)
    train.add_argument("--start", type=Path, help="a .safetensors whose fitting tensors are taken first")
    train.add_argument("--stop-at", type=int, help="end at this step, the schedule unchanged")
    add_fields(train, TrainConfig)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return guarded(PROG, lambda: work(args))


def work(args: argparse.Namespace) -> None:
    """Do what was asked for."""
    if args.command == "data":
        prepare(args.pictures, args.folder, DataConfig(**taken(args, DataConfig)), workers=args.workers)
        return
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # a step is finished first, so that the state kept is whole
        signal.signal(number, lambda *_: stop.set())
    train(args.pairs, args.run, TrainConfig(**taken(args, TrainConfig)), start=args.start, stop_at=args.stop_at, stopped=stop.is_set)


if __name__ == "__main__":
    sys.exit(main())
