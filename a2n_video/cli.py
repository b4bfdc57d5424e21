"""The command line: what was asked for is done, progress and plan to stderr, errors to one line and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from a2n_video.cli_options import PROG, check_together, job_options, names, parser
from a2n_video.errors import A2NVideoError, OptionError, OutputError, exit_code
from a2n_video.job.stages import left_behind
from a2n_video.job.stops import Stops, exit_code_of_stop
from a2n_video.job.talk import Listener, say, silence

if TYPE_CHECKING:
    from a2n_video.job.events import Events
    from a2n_video.job.planning.plan import JobPlan
    from a2n_video.job.run import MakerFactory

_LAST_STREAM: Final = 2  # the number of stderr in every process
_MOST_RATES: Final = 4  # workers whose speeds fit beside the bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected error is one line on stderr."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 talks to stderr by itself
    _prepare_streams()
    try:
        arguments = _parsed(sys.argv[1:] if argv is None else argv)
    except OptionError as error:
        say(f"{PROG}: {error}")
        return exit_code(error)
    with Stops() as stops:
        code = _told(arguments, stops)
    at_once = left_behind()  # the interpreter would wait for a thread that does not end, or fall over it
    for stream in filter(None, (sys.stdout, sys.stderr) if at_once else (sys.stderr,)):
        Listener(stream).flush()
    if at_once:
        os._exit(code)
    return code


def _prepare_streams() -> None:
    """Names of files need not be text for stdout to say them. And where 0, 1 or 2 is closed, the next file that is opened would get that
    number, and with it what a library says to stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    with suppress(OSError):  # a root without /dev
        while (place := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
            os.set_inheritable(place, True)
        os.close(place)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Options may stand between the files; after `--` everything is a file, which argparse can do or the other."""
    return parser().parse_args(argv) if "--" in argv else parser().parse_intermixed_args(argv)


def _told(arguments: argparse.Namespace, stops: Stops) -> int:
    try:
        return _dispatch(arguments, stops)
    except KeyboardInterrupt as error:
        say(f"{PROG}: stopped; {_after_a_stop(arguments)}")
        return exit_code_of_stop(error)
    except A2NVideoError as error:
        if arguments.verbose:
            say(traceback.format_exc().rstrip())
        say(f"{PROG}: {' '.join(str(error).split())}")
        return exit_code(error)


def _after_a_stop(arguments: argparse.Namespace) -> str:
    """What the same command will do: pipes, pictures and --no-resume keep no part of a job."""
    one = len(arguments.files) == 2 and arguments.output_dir is None
    if not getattr(arguments, "resume", True) or arguments.preview is not None or (one and _is_streamed(*arguments.files)):
        return "the same command begins anew"
    return "the same command goes on from here"


def _dispatch(arguments: argparse.Namespace, stops: Stops) -> int:
    if arguments.list_models:
        return _list_models()
    if arguments.list_devices:
        return _list_devices()
    check_together(arguments)
    if arguments.preview is not None:
        return _preview(arguments)
    if arguments.output_dir is not None:
        return _batch(arguments, stops)
    if len(arguments.files) != 2:
        raise OptionError(f"an input and an output are needed ({len(arguments.files)} came); see {PROG} --help")
    source, dest = arguments.files
    with _event_streams(arguments) as streams:
        return _one(source, dest, arguments, stops, streams)


def _one(source: Path, dest: Path, arguments: argparse.Namespace, stops: Stops, streams: list[TextIO]) -> int:
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
    from a2n_video.job.planning.plan import prepare
    from a2n_video.job.planning.report import describe
    from a2n_video.job.run import run

    plan = prepare(source, dest, job_options(arguments))
    events.plan(plan)
    if arguments.dry_run:
        if not arguments.json:
            _answer(describe(plan))
        return 0
    if not arguments.quiet:
        say(describe(plan))
    with _Bar(plan.frames, show=not arguments.quiet and sys.stderr is not None and sys.stderr.isatty()) as bar:

        def progress(frames: int) -> None:
            bar.update(frames)
            events.progress(frames)

        def rates(by_worker: Mapping[int, float]) -> None:
            bar.rates(by_worker)
            events.rates(by_worker)

        result = run(plan, on_progress=progress, stops=stops, make=_several(plan, rates), on_segment=events.segment)
    events.verified(result)
    if not arguments.quiet:
        say(result.summary)
    return result.exit_code


def _several(plan: JobPlan, rates: Callable[[Mapping[int, float]], None]) -> MakerFactory | None:
    """Who makes the segments where several workers do; None: this process."""
    if not plan.options.cluster.ray:
        return None
    from a2n_video.job.cluster.distributed import maker_telling

    return maker_telling(rates)


def _is_streamed(source: Path, dest: Path) -> bool:
    from a2n_video.job.streaming import is_streamed

    return is_streamed(source, dest)


def _stream(source: Path, dest: Path, arguments: argparse.Namespace, stops: Stops, events: Events) -> int:
    """A job from or to a pipe or pictures; stdout may be carrying the picture."""
    from a2n_video.job.planning.report import Plan, describe
    from a2n_video.job.run import upscale_stream
    from a2n_video.job.streaming import PIPE, plan_stream

    options = job_options(arguments)
    if arguments.dry_run:
        plan = plan_stream(source, dest, options)
        events.plan(plan, dest)
        if not arguments.json:
            _answer(describe(plan, source, dest))
        return 0
    if arguments.json and dest == PIPE:
        raise OptionError("--json writes to stdout, which carries the picture here; use --log-file FILE")

    def told(plan: Plan) -> None:
        events.plan(plan, dest)
        if not arguments.quiet:
            say(describe(plan, source, dest))

    result = upscale_stream(source, dest, options, events.progress, stops, told)
    events.verified(result)
    if not arguments.quiet:
        say(result.summary)
    return result.exit_code


def _batch(arguments: argparse.Namespace, stops: Stops) -> int:
    from a2n_video.job.batch import DEFAULT_PATTERN, BatchItem, batch_exit_code, collect, run_batch, summary
    from a2n_video.job.events import Events

    if not arguments.files:
        raise OptionError("--output-dir is for the results of files or folders; name some")
    options = job_options(arguments)
    items = collect(arguments.files, arguments.output_dir, arguments.name_pattern or DEFAULT_PATTERN, options)
    with _event_streams(arguments) as streams:

        def one(item: BatchItem) -> int:
            return _one(item.source, item.dest, arguments, stops, streams)

        def skip(item: BatchItem) -> None:
            Events(item.source, streams).skipped(item.dest)

        outcomes = run_batch(items, overwrite=options.execution.overwrite, one=one, skip=skip, planning=arguments.dry_run)
    code = batch_exit_code(outcomes)
    if code or not arguments.quiet:
        say(summary(outcomes))
    return code


@contextmanager
def _event_streams(arguments: argparse.Namespace) -> Iterator[list[TextIO]]:
    """Where events go: stdout, a log file, both or nowhere."""
    streams = [sys.stdout] if arguments.json and sys.stdout is not None else []
    if arguments.log_file is None:
        yield streams
        return
    if any(arguments.log_file.resolve() == path.resolve() for path in arguments.files):
        raise OptionError(f"--log-file {arguments.log_file}: this is the input or the output; choose another name")
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
    _answer(preview(arguments.files[0], arguments.preview, wanted).summary)
    return 0


class _Bar:
    """tqdm on stderr, or nothing."""

    def __init__(self, frames: int, *, show: bool) -> None:
        from tqdm import tqdm

        place: Any = Listener(sys.stderr) if show else None
        self._bar = tqdm(total=frames, file=place, unit="frame", disable=not show, smoothing=0.05, dynamic_ncols=True)
        self._begun = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, frames: int) -> None:
        if not self._begun and not self._bar.disable:
            # What came with the first frame was made by earlier runs, and the engine had to start: no pace of this one.
            self._begun = True
            self._bar.initial = self._bar.n = self._bar.last_print_n = frames
            self._bar.start_t = self._bar.last_print_t = time.time()
            self._bar.refresh()
        self._bar.update(frames - self._bar.n)

    def rates(self, by_worker: Mapping[int, float]) -> None:
        """Show what each worker does, of many the range."""
        fps = [f"{rate:.3g}" for rate in sorted(by_worker.values(), reverse=True)]
        told = "+".join(fps) if len(fps) <= _MOST_RATES else f"{len(fps)} workers at {fps[-1]} to {fps[0]}"
        if fps:
            self._bar.set_postfix_str(f"{told} fps", refresh=False)


def _answer(text: str) -> None:
    """What was asked for, on stdout; OutputError where that takes no more. A reader such as `head` that has seen enough is no error."""
    try:
        print(text, flush=True)
    except OSError as error:
        silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"-: what was asked for cannot be written to stdout: {error.strerror}") from error


def _list_models() -> int:
    from a2n_video.net.catalog import AUTO, available_models, resolve_model

    for model in available_models():
        _answer(f"{model}, what auto takes" if resolve_model(AUTO, model.scale) == model.name else str(model))
    return 0


def _list_devices() -> int:
    from a2n_video.engine.select import available_devices
    from a2n_video.vs_engine import filter_state

    for device in available_devices():
        _answer(str(device))
    _answer(f"VapourSynth: {filter_state()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
