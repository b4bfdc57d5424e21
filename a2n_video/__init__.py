"""Video super-resolution with A2N: files, VapourSynth scripts and Python loops, one engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from a2n_video import errors as errors
    from a2n_video.io.probe import probe as probe
    from a2n_video.io.reader import VideoReader as VideoReader
    from a2n_video.io.writer import VideoWriter as VideoWriter
    from a2n_video.job.result import UpscaleResult as UpscaleResult
    from a2n_video.job.run import upscale_video as upscale_video
    from a2n_video.media.info import VideoInfo as VideoInfo
    from a2n_video.net.catalog import available_models as available_models
    from a2n_video.net.model import A2N as A2N
    from a2n_video.net.model import A2NConfig as A2NConfig
    from a2n_video.net.weights import load_model as load_model
    from a2n_video.options import EncodeOptions as EncodeOptions
    from a2n_video.options import JobOptions as JobOptions
    from a2n_video.upscaler import Upscaler as Upscaler
    from a2n_video.upscaler import upscale_frames as upscale_frames

# Names are imported when they are first used: `nearest` and --help start without torch.
_HOME = {
    "A2N": "net.model",
    "A2NConfig": "net.model",
    "EncodeOptions": "options",
    "JobOptions": "options",
    "UpscaleResult": "job.result",
    "Upscaler": "upscaler",
    "VideoInfo": "media.info",
    "VideoReader": "io.reader",
    "VideoWriter": "io.writer",
    "available_models": "net.catalog",
    "load_model": "net.weights",
    "probe": "io.probe",
    "upscale_frames": "upscaler",
    "upscale_video": "job.run",
}

__all__ = [
    "A2N",
    "A2NConfig",
    "EncodeOptions",
    "JobOptions",
    "UpscaleResult",
    "Upscaler",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "available_models",
    "errors",
    "load_model",
    "probe",
    "upscale_frames",
    "upscale_video",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("a2n_video.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'a2n_video' has no attribute {name!r}")
    return getattr(import_module(f"a2n_video.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
