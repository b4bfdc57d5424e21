"""The other encoder back end: frames through an ffmpeg binary, for encoders that PyAV's wheel has not (VAAPI, libaom, other hardware).

Command lines are ffmpeg-python's; we run them ourselves, because its own runner leaves stderr in a pipe that nobody reads and hangs
once 64 KiB stand in it. Same settings and same interface as io/writer.py.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
from fractions import Fraction
from functools import lru_cache
from typing import IO, Any, BinaryIO, Final

import av
import ffmpeg

from a2n_video.errors import EncodeError, MissingDependencyError, OptionError
from a2n_video.io.writer import EncoderSettings, FrameWriter, supported_codecs
from a2n_video.media.containers import TRANSPORT

_CHUNK: Final = 1 << 18
_QUOTED: Final = 600
_VAAPI_DEVICE: Final = "/dev/dri/renderD128"
_VAAPI_FORMATS: Final = ("nv12", "p010le")


@lru_cache(maxsize=1)
def binary() -> str:
    """The ffmpeg to run: the one on PATH, else imageio-ffmpeg's; MissingDependencyError where there is neither."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingDependencyError(
            "--encoder-backend ffmpeg: no ffmpeg on PATH; install one, or pip install 'a2n-video[ffmpeg]'"
        ) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def version() -> str:
    """Which build the binary says it is."""
    words = _ask("-version").partition("\n")[0]
    match = re.match(r"ffmpeg version (.*?)(?: Copyright|$)", words)
    return match[1] if match else words


def pix_fmts_of(codec: str) -> tuple[str, ...]:
    """Pixel formats an encoder of the binary says it takes; a ValueError where it has no such encoder."""
    listed = _ask("-h", f"encoder={codec}")
    if "is not recognized" in listed or f"Encoder {codec} " not in listed:
        raise ValueError(f"{binary()} has no encoder {codec}")
    match = re.search(r"Supported pixel formats: (.*)", listed)
    formats = tuple(match[1].split()) if match else ()
    return _VAAPI_FORMATS if formats == ("vaapi",) else formats


def codec_name(encoder: str) -> str:
    """What an encoder of the binary makes, by FFmpeg's codec name, such as av1 for libaom-av1."""
    match = re.search(rf"^ V\S+ {re.escape(encoder)}\s.*?(?:\(codec (\S+)\))?$", _ask("-encoders"), re.MULTILINE)
    return (match[1] or encoder) if match else encoder


def check_container(encoder: str, container: str) -> None:
    """An OptionError if the container cannot hold what the encoder makes."""
    codec = codec_name(encoder)
    if codec not in supported_codecs(container) and container not in TRANSPORT:
        raise OptionError(f"a {container} file cannot hold {codec} video ({encoder}); choose another --codec or another extension")


def check_encoder(settings: EncoderSettings) -> None:
    """Encode one black frame into nothing with just these settings; an OptionError that quotes the binary where it refuses."""
    source = ffmpeg.input(f"color=s={settings.width}x{settings.height}:r=25,format={settings.pix_fmt}", f="lavfi")
    command = _command(source, "-", settings, {"f": "null", "frames:v": 1})
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    unused = re.search(r"Codec AVOption (\S+) .* has not been used", done.stderr)
    if done.returncode or unused:
        reason = f"it has no option {unused[1]}" if unused and not done.returncode else _tail(done.stderr)
        raise OptionError(f"ffmpeg's {settings.codec} refuses {settings.width}x{settings.height} {settings.pix_fmt}: {reason}")


class FfmpegWriter(FrameWriter):
    """An ffmpeg process that encodes into a file object of ours; see `VideoWriter`, whose place it takes.

    `write` and `close` are for one thread. A thread of its own carries the encoder's output into the file. The process's words go into
    a file and are quoted where it fails; it can neither block on them nor die unseen.
    """

    def __init__(self, file: BinaryIO, settings: EncoderSettings) -> None:
        self.settings = settings
        self.frames = 0
        self._closed = False
        self._file = file
        self._error: BaseException | None = None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            _command(ffmpeg.input("pipe:0", f="nut"), "pipe:1", settings, _muxing(settings)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )
        self._pump = threading.Thread(target=self._carry, name="ffmpeg output", daemon=True)
        self._pump.start()
        self._container = av.open(_Pipe(self._process.stdin), "w", format="nut", container_options={"avoid_negative_ts": "disabled"})
        self._stream: Any = self._container.add_stream("rawvideo", rate=settings.frame_rate or Fraction(25))
        self._stream.width, self._stream.height, self._stream.pix_fmt = settings.width, settings.height, settings.pix_fmt
        self._stream.codec_context.time_base = self._stream.time_base = settings.time_base

    def write(self, frame: av.VideoFrame) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._failure(f"frame {self.frames} (pts {frame.pts}) could not be given to") from error
        self.frames += 1

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(av.FFmpegError, OSError):  # what broke is told by the exit status below
            self._container.mux(self._stream.encode(None))
            self._container.close()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._pump.join()
        if self._process.wait() or self._error is not None:
            raise self._failure(f"after {self.frames} frames there was an error in")
        self._words.close()

    def abort(self) -> None:
        self._closed = True
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._pump.join()

    def kill(self) -> None:
        self._process.kill()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _carry(self) -> None:
        """Everything the encoder writes into the file, in the pump's thread; the first error ends the process."""
        assert self._process.stdout is not None
        try:
            while chunk := self._process.stdout.read(_CHUNK):
                self._file.write(chunk)
        except BaseException as error:  # noqa: BLE001 - handed whole to the writer's thread
            self._error = error
            self._process.kill()

    def _failure(self, what: str) -> EncodeError:
        if isinstance(self._error, EncodeError | OSError):
            return EncodeError(str(self._error))
        self._words.seek(0)
        words = _tail(self._words.read().decode(errors="replace"))
        return EncodeError(f"{what} ffmpeg ({self.settings.codec}, exit {self._process.returncode}): {words}")


class _Pipe:
    """A pipe that PyAV may write to; it cannot seek, and says so."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self.write = pipe.write
        self.flush = pipe.flush

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False


def _command(source: Any, target: str, settings: EncoderSettings, more: dict[str, Any]) -> list[str]:
    """The whole command line: frames as they are, tagged, with their own times, through the encoder."""
    color = settings.color
    tags = {"range": 1 + bool(color.full_range), "colorspace": color.matrix, "color_primaries": color.primaries}
    tags |= {"color_trc": color.transfer, "chroma_location": color.chroma_location}
    filters = [
        "setparams=" + ":".join(f"{name}={value}" for name, value in tags.items()),
        f"setsar={settings.sar.numerator}/{settings.sar.denominator}",
    ]
    extra = ["-hide_banner", "-nostdin", "-loglevel", "warning", "-copyts"]
    if settings.codec.endswith("_vaapi"):
        extra += ["-vaapi_device", _VAAPI_DEVICE]
        filters += ["hwupload"]
    else:
        more = {"pix_fmt": settings.pix_fmt, **more}
    options = dict(settings.options)
    if settings.closed_gop:
        options["flags"] = options.get("flags", "") + "+cgop"
    if settings.threads:
        more = {"threads": settings.threads, **more}
    made = source.output(
        target,
        vcodec=settings.codec,
        vf=",".join(filters),
        fps_mode="passthrough",
        enc_time_base=f"{settings.time_base.numerator}/{settings.time_base.denominator}",
        **options,
        **more,
    )
    return [*ffmpeg.compile(made.global_args(*extra), cmd=binary())]


def _muxing(settings: EncoderSettings) -> dict[str, Any]:
    # A pipe cannot seek, so mov is written in fragments; without frag_discont they would begin at 0, wherever the first frame is.
    pipe = {"movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont"} if settings.container == "mov" else {}
    return {"f": settings.container, "avoid_negative_ts": "disabled", **pipe, **settings.muxer}


def _ask(*arguments: str) -> str:
    done = subprocess.run([binary(), "-hide_banner", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _tail(words: str) -> str:
    """The last of what the binary said, on one line."""
    return " ".join(words.split())[-_QUOTED:] or "it said nothing"
