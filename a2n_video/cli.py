"""The command line: arguments to JobOptions, progress and plan to stderr, errors to one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from a2n_video import __version__
from a2n_video.errors import A2NVideoError, OptionError, OutputError, exit_code
from a2n_video.job.stages import left_behind
from a2n_video.job.stops import Stops, exit_code_of_stop
from a2n_video.options import JobOptions, refuse_scale_beside_size
from a2n_video.tools.shell import seconds

if TYPE_CHECKING:
    from a2n_video.job.events import Events
    from a2n_video.job.plan import JobPlan
    from a2n_video.job.run import MakerFactory

PROG: Final = "a2n-video"
_MOST_RATES: Final = 4  # workers whose speeds fit beside the bar


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def names(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


# Every option of a job: group, flags, and what argparse is told. `dest` is the field's own name in JobOptions.
OPTIONS: Final[tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]] = (
    ("network", ("--scale",), {"type": int, "help": "2, 3 or 4 (default 2)"}),
    ("network", ("--model",), {"help": "a bundled model (see --list-models; default: auto)"}),
    ("network", ("--weights",), {"metavar": "FILE", "help": "weights of your own: .safetensors or .pt"}),
    ("network", ("--device",), {"help": "cpu, cuda, cuda:1, xpu, ... (default: the best there is)"}),
    ("network", ("--dtype",), {"choices": ("auto", "float32", "bfloat16", "float16", "int8"), "help": "arithmetic of the network"}),
    ("network", ("--engine",), {"choices": ("auto", "torch", "openvino", "accelerator"), "help": "what runs the network"}),
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
    ("time", ("--start",), {"type": seconds, "metavar": "TIME", "help": "from here, 90.5 or 0:01:30.5"}),
    ("time", ("--end",), {"type": seconds, "metavar": "TIME", "help": "up to here"}),
    ("time", ("--frames",), {"type": int, "metavar": "N", "help": "stop after N frames; sound is cut at the same time"}),
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
    ("fidelity", ("--fps",), {"type": Fraction, "metavar": "N/D", "help": "frame rate of a source that has no time stamps"}),
    ("job", ("--overwrite",), {"action": "store_true", "help": "replace an output that exists"}),
    ("job", ("--restart",), {"action": "store_true", "help": "begin anew instead of going on with a stopped job"}),
    ("job", ("--no-resume",), {"dest": "resume", "action": "store_false", "help": "begin anew, and keep nothing if this run is stopped"}),
    (
        "job",
        ("--segment-frames",),
        {"type": int, "metavar": "N", "help": "frames a stop can cost (default: two minutes of work)"},
    ),
    ("job", ("--max-errors",), {"type": int, "metavar": "N", "help": "give up after more than N decode errors (default: never)"}),
    ("job", ("--fail-on-damage",), {"action": "store_true", "help": "give up at the first sign of a damaged source"}),
    ("cluster", ("--ray",), {"action": "store_true", "help": "make the segments on Ray's workers: this machine's devices, or a cluster"}),
    (
        "cluster",
        ("--ray-address",),
        {"metavar": "HOST:PORT", "help": "the cluster (default: RAY_ADDRESS, else this machine); implies --ray"},
    ),
    ("cluster", ("--cpus-per-worker",), {"type": int, "metavar": "N", "help": "cores a worker has (default 1)"}),
    ("cluster", ("--devices",), {"type": names, "metavar": "A,B,...", "help": "one worker for each, such as cuda:0,cuda:1; implies --ray"}),
    (
        "cluster",
        ("--ship",),
        {"action": "store_true", "help": "send parts of the input and the results through Ray: no shared folder needed"},
    ),
    ("job", ("--sandbox",), {"action": "store_true", "help": "decode in a child process with limits, for files you do not trust"}),
    (
        "job",
        ("--stall-timeout",),
        {"type": float, "metavar": "SECONDS", "help": "give up on a stage that hangs (default: 10 minutes or more)"},
    ),
    ("job", ("--max-pixels",), {"type": int, "metavar": "N", "help": "refuse sources with larger pictures (default 8192*4320)"}),
)


def parser() -> argparse.ArgumentParser:
    """The command line's parser; defaults are JobOptions' own, so none stand here."""
    result = argparse.ArgumentParser(
        prog=PROG,
        description="Upscale a video with the A2N network; sound, subtitles, chapters, time and colour stay as they are.",
        epilog="Exit codes: 0 complete, 2 usage, 3 input, 4 source damaged (result kept), 5 output, 6 weights or device, "
        "7 verification, 8 some of a batch failed, 130 and 143 stopped.",
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="the input, then the output (the extension chooses the container)"
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
        "many files", "FILE is then any number of inputs, and folders of them; results that are there are skipped"
    )
    many.add_argument("--output-dir", type=Path, metavar="DIR", default=None, help="put the results here; folders are kept below it")
    many.add_argument("--name-pattern", metavar="PATTERN", default=None, help="their names, from {stem} {suffix} {scale} {model}")
    talk = result.add_argument_group("talk")
    talk.add_argument("--dry-run", action="store_true", default=False, help="print the plan and stop")
    talk.add_argument("-q", "--quiet", action="store_true", default=False, help="no progress and no plan, only errors")
    talk.add_argument("-v", "--verbose", action="store_true", default=False, help="more of what goes on; tracebacks of errors")
    talk.add_argument("--json", action="store_true", default=False, help="events as JSON lines on stdout")
    talk.add_argument("--log-file", type=Path, metavar="FILE", default=None, help="append the same lines to a file")
    talk.add_argument("--list-models", action="store_true", default=False, help="print the bundled models and stop")
    talk.add_argument("--list-devices", action="store_true", default=False, help="print the devices and stop")
    talk.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    return result


def job_options(arguments: argparse.Namespace) -> JobOptions:
    """JobOptions with what was given on the command line."""
    known = {settings.get("dest") or flags[-1].lstrip("-").replace("-", "_") for _, flags, settings in OPTIONS}
    given = {name: value for name, value in vars(arguments).items() if name in known}
    if "encoder_options" in given:
        given["encoder_options"] = dict(given["encoder_options"])
    refuse_scale_beside_size(given)
    if "ray_address" in given or "devices" in given:
        given["ray"] = True
    return JobOptions().with_changes(**given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected error is one line on stderr."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 talks to stderr by itself
    arguments = parser().parse_args(argv)
    with Stops() as stops:
        code = _told(arguments, stops)
    if left_behind():  # the interpreter would wait for a thread that does not end, or fall over it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _told(arguments: argparse.Namespace, stops: Stops) -> int:
    try:
        return _dispatch(arguments, stops)
    except KeyboardInterrupt as error:
        print(f"{PROG}: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of_stop(error)
    except A2NVideoError as error:
        if arguments.verbose:
            raise
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return exit_code(error)


def _dispatch(arguments: argparse.Namespace, stops: Stops) -> int:
    if arguments.list_models:
        return _list_models()
    if arguments.list_devices:
        return _list_devices()
    if arguments.preview is not None:
        return _preview(arguments)
    if arguments.output_dir is not None:
        return _batch(arguments, stops)
    if arguments.name_pattern is not None:
        raise OptionError("--name-pattern names the results of a batch; give --output-dir as well")
    if len(arguments.files) != 2:
        raise OptionError(f"an input and an output are needed ({len(arguments.files)} came); see {PROG} --help")
    source, dest = arguments.files
    with _event_streams(arguments) as streams:
        return _one(source, dest, arguments, stops, streams)


def _one(source: Path, dest: Path, arguments: argparse.Namespace, stops: Stops, streams: Sequence[TextIO]) -> int:
    """Do one file; whatever ends it is told to the event streams as well."""
    from a2n_video.job.events import Events

    events = Events(source, streams)
    try:
        do = _stream if _is_streamed(source, dest) else _job
        return do(source, dest, arguments, stops, events)
    except KeyboardInterrupt as error:
        events.error(error, exit_code_of_stop(error))
        raise
    except Exception as error:
        events.error(error)
        raise


def _job(source: Path, dest: Path, arguments: argparse.Namespace, stops: Stops, events: Events) -> int:
    from a2n_video.job.plan import prepare
    from a2n_video.job.report import describe
    from a2n_video.job.run import run

    plan = prepare(source, dest, job_options(arguments))
    events.plan(plan)
    if arguments.dry_run:
        if not arguments.json:
            print(describe(plan))
        return 0
    if not arguments.quiet:
        print(describe(plan), file=sys.stderr)
    with _Bar(plan.frames, show=not arguments.quiet and sys.stderr.isatty()) as bar:

        def progress(frames: int) -> None:
            bar.update(frames)
            events.progress(frames)

        def rates(by_worker: Mapping[int, float]) -> None:
            bar.rates(by_worker)
            events.rates(by_worker)

        result = run(plan, on_progress=progress, stops=stops, make=_several(plan, rates), on_segment=events.segment)
    events.verified(result)
    if not arguments.quiet:
        print(result.summary, file=sys.stderr)
    return result.exit_code


def _several(plan: JobPlan, rates: Callable[[Mapping[int, float]], None]) -> MakerFactory | None:
    """Who makes the segments where several workers do; None: this process."""
    if not plan.options.cluster.ray:
        return None
    from a2n_video.job.distributed import maker_telling

    return maker_telling(rates)


def _is_streamed(source: Path, dest: Path) -> bool:
    from a2n_video.job.streaming import is_streamed

    return is_streamed(source, dest)


def _stream(source: Path, dest: Path, arguments: argparse.Namespace, stops: Stops, events: Events) -> int:
    """A job from or to a pipe or pictures; stdout may be carrying the picture."""
    from a2n_video.job.report import Plan, describe
    from a2n_video.job.run import upscale_stream
    from a2n_video.job.streaming import PIPE, plan_stream

    options = job_options(arguments)
    if arguments.dry_run:
        plan = plan_stream(source, dest, options)
        events.plan(plan)
        if not arguments.json:
            print(describe(plan))
        return 0
    if arguments.json and dest == PIPE:
        raise OptionError("--json writes to stdout, which carries the picture here; use --log-file FILE")

    def told(plan: Plan) -> None:
        events.plan(plan)
        if not arguments.quiet:
            print(describe(plan), file=sys.stderr)

    result = upscale_stream(source, dest, options, events.progress, stops, told)
    events.verified(result)
    if not arguments.quiet:
        print(result.summary, file=sys.stderr)
    return result.exit_code


def _batch(arguments: argparse.Namespace, stops: Stops) -> int:
    from a2n_video.job.batch import DEFAULT_PATTERN, BatchItem, batch_exit_code, collect, run_batch, summary
    from a2n_video.job.events import Events

    options = job_options(arguments)
    items = collect(arguments.files, arguments.output_dir, arguments.name_pattern or DEFAULT_PATTERN, options)
    with _event_streams(arguments) as streams:

        def one(item: BatchItem) -> int:
            return _one(item.source, item.dest, arguments, stops, streams)

        outcomes = run_batch(items, overwrite=options.execution.overwrite, one=one)
        for outcome in outcomes:
            if outcome.fate == "skipped":
                Events(outcome.item.source, streams).skipped(outcome.item.dest)
    print(summary(outcomes), file=sys.stderr)
    return batch_exit_code(outcomes)


@contextmanager
def _event_streams(arguments: argparse.Namespace) -> Iterator[list[TextIO]]:
    """Where events go: stdout, a log file, both or nowhere."""
    streams = [sys.stdout] if arguments.json else []
    if arguments.log_file is None:
        yield streams
        return
    try:
        log = arguments.log_file.open("a", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{arguments.log_file}: the log cannot be written ({error.strerror})") from error
    with log:
        yield [*streams, log]


def _preview(arguments: argparse.Namespace) -> int:
    from a2n_video.tools.preview import Crop, PreviewOptions, preview

    if len(arguments.files) != 1:
        raise OptionError(f"--preview takes one input and no output ({len(arguments.files)} files came); see {PROG} --help")
    wanted = PreviewOptions(
        job=job_options(arguments),
        models=names(arguments.models) if arguments.models else None,
        at=arguments.at,
        crop=Crop.parse(arguments.crop) if arguments.crop else None,
    )
    print(preview(arguments.files[0], arguments.preview, wanted).summary)
    return 0


class _Bar:
    """tqdm on stderr, or nothing."""

    def __init__(self, frames: int, *, show: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=frames, unit="frame", disable=not show, smoothing=0.05, dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, frames: int) -> None:
        self._bar.update(frames - self._bar.n)

    def rates(self, by_worker: Mapping[int, float]) -> None:
        """Show what each worker does, of many the range."""
        fps = [f"{rate:.3g}" for rate in sorted(by_worker.values(), reverse=True)]
        told = "+".join(fps) if len(fps) <= _MOST_RATES else f"{len(fps)} workers at {fps[-1]} to {fps[0]}"
        if fps:
            self._bar.set_postfix_str(f"{told} fps", refresh=False)


def _list_models() -> int:
    from a2n_video.net.catalog import available_models

    for model in available_models():
        print(model)
    return 0


def _list_devices() -> int:
    from a2n_video.engine.select import available_devices
    from a2n_video.vs_engine import filter_state

    for device in available_devices():
        print(device)
    print(f"VapourSynth: {filter_state()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
