"""What the command line can be told: a table of every option of a job, the parser made from it, and JobOptions from what came."""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NoReturn

from a2n_video import __version__
from a2n_video.errors import OptionError
from a2n_video.options import JobOptions, rate_of, refuse_scale_beside_size
from a2n_video.tools.shell import count, count_or_none, seconds

PROG: Final = "a2n-video"


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def rate(text: str) -> Fraction:
    """N or N/D frames a second, as `rate_of` takes them."""
    try:
        return rate_of(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def names(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def devices(text: str) -> tuple[str, ...]:
    """A list with commas that is not empty."""
    if not names(text):
        raise argparse.ArgumentTypeError(f"{text!r} names no device")
    return names(text)


# Every option of a job: group, flags, and what argparse is told. `dest` is the field's own name in JobOptions.
OPTIONS: Final[tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]] = (
    ("network", ("--scale",), {"type": int, "help": "2, 3 or 4 (default 2)"}),
    ("network", ("--model",), {"help": "a bundled model (see --list-models; default: auto)"}),
    ("network", ("--weights",), {"metavar": "FILE", "help": "weights of your own: .safetensors or .pt"}),
    ("network", ("--device",), {"help": "cpu, cuda, cuda:1, xpu, ... (default: the best there is)"}),
    ("network", ("--dtype",), {"choices": ("auto", "float32", "bfloat16", "float16", "int8"), "help": "arithmetic of the network"}),
    ("network", ("--engine",), {"choices": ("auto", "native", "torch", "openvino", "accelerator"), "help": "what runs the network"}),
    ("network", ("--batch-size",), {"type": int, "metavar": "N", "help": "frames at a time (default: by size and memory)"}),
    ("network", ("--threads",), {"type": int, "metavar": "N", "help": "threads of the network on a CPU (default: all cores)"}),
    ("network", ("--compile",), {"choices": ("auto", "on", "off"), "help": "torch.compile on an accelerator (auto: in long jobs)"}),
    (
        "network",
        ("--cuda-graph",),
        {"action": "store_true", "help": "replay the network as a CUDA graph, checked against eager at the start"},
    ),
    ("encoder", ("--codec",), {"help": "FFmpeg encoder, such as libx265, libsvtav1, ffv1"}),
    ("encoder", ("--crf",), {"type": float, "help": "constant quality on the encoder's own scale (libx264: 16)"}),
    ("encoder", ("--preset",), {"help": "the encoder's speed setting (libx264: medium)"}),
    ("encoder", ("--pix-fmt",), {"help": "pixel format of the result (default: the source's, depth kept)"}),
    (
        "encoder",
        ("-e", "--encoder-option"),
        {
            "dest": "encoder_options",
            "action": "append",
            "type": pair,
            "metavar": "KEY=VALUE",
            "help": "passed to the encoder; may be repeated",
        },
    ),
    (
        "encoder",
        ("--encoder-backend",),
        {"choices": ("pyav", "ffmpeg"), "help": "ffmpeg: encode with an ffmpeg binary, for encoders PyAV has not (VAAPI, libaom)"},
    ),
    ("encoder", ("--pipe-format",), {"choices": ("y4m", "nut", "mkv"), "help": "what is written to - (default y4m: picture only)"}),
    (
        "time",
        ("--start",),
        {
            "type": seconds,
            "metavar": "TIME",
            "help": "from here, 90.5 or 0:01:30.5, counted from the first frame (not from sound before it)",
        },
    ),
    ("time", ("--end",), {"type": seconds, "metavar": "TIME", "help": "up to here, counted likewise"}),
    ("time", ("--frames",), {"type": count, "metavar": "N", "help": "stop after N frames; sound is cut at the same time"}),
    ("fidelity", ("--keep-all",), {"action": "store_true", "help": "refuse to start if anything would be dropped"}),
    (
        "fidelity",
        ("--reencode-audio",),
        {"metavar": "CODEC", "help": "encode audio the container cannot hold with this (else it is dropped, and the plan says so)"},
    ),
    (
        "fidelity",
        ("--deinterlace",),
        {
            "choices": ("auto", "frame", "field", "ivtc", "off"),
            "help": "auto: interlaced frames, rate kept; frame: every frame; field: rate doubled; ivtc: film from telecine; off",
        },
    ),
    ("fidelity", ("--size",), {"metavar": "SIZE", "help": "1440p, 2560x1440 or fit:3840x2160; picks the network's scale"}),
    ("fidelity", ("--fps",), {"type": rate, "metavar": "N/D", "help": "frame rate of a source that has no time stamps"}),
    ("job", ("--overwrite",), {"action": "store_true", "help": "replace an output that exists"}),
    ("job", ("--restart",), {"action": "store_true", "help": "begin anew instead of going on with a stopped job"}),
    ("job", ("--no-resume",), {"dest": "resume", "action": "store_false", "help": "begin anew, and keep nothing if this run is stopped"}),
    (
        "job",
        ("--segment-frames",),
        {"type": count, "metavar": "N", "help": "frames a stop can cost (default: two minutes of work)"},
    ),
    ("job", ("--max-errors",), {"type": count_or_none, "metavar": "N", "help": "give up after more than N decode errors (default: never)"}),
    ("job", ("--fail-on-damage",), {"action": "store_true", "help": "give up at the first sign of a damaged source"}),
    ("cluster", ("--ray",), {"action": "store_true", "help": "make the segments on Ray's workers: this machine's devices, or a cluster"}),
    (
        "cluster",
        ("--ray-address",),
        {"metavar": "HOST:PORT", "help": "the cluster (default: RAY_ADDRESS, else this machine); implies --ray"},
    ),
    ("cluster", ("--cpus-per-worker",), {"type": count, "metavar": "N", "help": "cores a worker has (default 1)"}),
    (
        "cluster",
        ("--devices",),
        {"type": devices, "metavar": "A,B,...", "help": "one worker for each, such as cuda:0,cuda:1; implies --ray"},
    ),
    (
        "cluster",
        ("--ship",),
        {"action": "store_true", "help": "send parts of the input and the results through Ray: no shared folder needed"},
    ),
    ("job", ("--sandbox",), {"action": "store_true", "help": "decode in a child process with limits, for files you do not trust"}),
    (
        "job",
        ("--stall-timeout",),
        {"type": positive, "metavar": "SECONDS", "help": "give up on a stage that hangs (default: 10 minutes or more)"},
    ),
    ("job", ("--max-pixels",), {"type": count, "metavar": "N", "help": "refuse sources with larger pictures (default 8192*4320)"}),
)


class _Parser(argparse.ArgumentParser):
    """Errors are ours, of one line; `--help` is there for the rest."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The command line's parser; defaults are JobOptions' own, so none stand here."""
    result = _Parser(
        prog=PROG,
        description="Upscale a video with the A2N network; sound, subtitles, chapters, time and colour stay as they are.",
        epilog="Exit codes: 0 complete, 2 usage, 3 input, 4 source damaged (what could be made is kept), 5 output, 6 weights or device, "
        "7 verification, 8 some of a batch failed, 130 and 143 stopped.",
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument(
        "files", nargs="*", type=Path, default=[], metavar="FILE", help="the input, then the output (the extension chooses the container)"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, flags, settings in OPTIONS:
        group = groups.setdefault(name, result.add_argument_group(name) if name not in groups else groups[name])
        group.add_argument(*flags, **settings)
    look = result.add_argument_group("preview", "one frame beside nearest and bicubic, in seconds; the only FILE is the input")
    look.add_argument("--preview", type=Path, metavar="PICTURE", default=None, help="draw it here (PNG or JPEG) and stop")
    look.add_argument("--at", type=seconds, metavar="TIME", default=None, help="the frame shown then (default: the middle)")
    look.add_argument("--crop", metavar="WxH[+X+Y]", default=None, help="this part of the source (default: 320x240 where most detail is)")
    look.add_argument("--models", metavar="A,B,...", default=None, help="several models beside each other")
    many = result.add_argument_group(
        "many files",
        "FILE is then any number of inputs, and folders, of which the videos are taken (pictures are named: *.png, or numbered as one "
        "video: a_%05d.png); results that are there are skipped",
    )
    many.add_argument("--output-dir", type=Path, metavar="DIR", default=None, help="put the results here; folders are kept below it")
    many.add_argument("--name-pattern", metavar="PATTERN", default=None, help="their names, from {stem} {suffix} {scale} {size} {model}")
    talk = result.add_argument_group("talk")
    talk.add_argument("--dry-run", action="store_true", default=False, help="print the plan and stop")
    talk.add_argument("-q", "--quiet", action="store_true", default=False, help="no progress and no plan, only errors")
    talk.add_argument("-v", "--verbose", action="store_true", default=False, help="errors with their tracebacks")
    talk.add_argument("--json", action="store_true", default=False, help="events as JSON lines on stdout")
    talk.add_argument("--log-file", type=Path, metavar="FILE", default=None, help="append the same lines to a file")
    talk.add_argument("--list-models", action="store_true", default=False, help="print the bundled models and stop")
    talk.add_argument("--list-devices", action="store_true", default=False, help="print the devices and stop")
    talk.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    return result


# What means nothing beside or without something else: (option, the option it needs or cannot have).
_NEED: Final = (("at", "preview"), ("crop", "preview"), ("models", "preview"), ("name_pattern", "output_dir"))
_NEED_WORKERS: Final = ("ship", "cpus_per_worker")
_NOT_BESIDE_PREVIEW: Final = ("dry_run", "json", "log_file", "output_dir")


def check_together(arguments: argparse.Namespace) -> None:
    """OptionError for options that would do nothing."""
    given = {name for name, value in vars(arguments).items() if value is not None and value is not False}
    for name, needed in _NEED:
        if name in given and needed not in given:
            raise OptionError(f"{_flag(name)} says something of {_flag(needed)}, which was not given")
    for name in _NEED_WORKERS:
        if name in given and not given & {"ray", "ray_address", "devices"}:
            raise OptionError(f"{_flag(name)} is for several workers; give --ray as well")
    for name in _NOT_BESIDE_PREVIEW:
        if name in given and "preview" in given:
            raise OptionError(f"--preview draws one picture and stops; leave {_flag(name)} out")
    if "pipe_format" in given and arguments.files[1:] != [Path("-")]:
        raise OptionError("--pipe-format is for a result on a pipe: name the output -")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def job_options(arguments: argparse.Namespace) -> JobOptions:
    """JobOptions with what was given on the command line."""
    known = {settings.get("dest") or flags[-1].lstrip("-").replace("-", "_") for _, flags, settings in OPTIONS}
    given = {name: value for name, value in vars(arguments).items() if name in known}
    if "encoder_options" in given:
        given["encoder_options"] = dict(given["encoder_options"])
    refuse_scale_beside_size(given)
    return JobOptions().with_changes(**given)
