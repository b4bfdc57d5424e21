"""Where training pictures come from: a folder of pictures and video files, and pictures drawn here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from a2n_video.errors import InputError
from a2n_video.io.chunks import READABLE
from a2n_video.io.rgb import Image, count_frames, read_rgb
from a2n_video.io.sequences import is_picture

VIDEOS = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".ts"}
# Of a video file: this many frames, this far apart.
FRAMES_PER_VIDEO = 16
FRAME_STRIDE = 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture to be read when wanted: a file, and the frame of it (0 for a picture); or, without a file, one drawn from a seed."""

    path: Path | None
    frame: int = 0


def list_sources(folder: Path) -> list[Source]:
    """Every picture of a folder and frames of its videos, sorted by name. InputError if there is none, or a video cannot be read."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READABLE | VIDEOS)
    sources = [Source(path=path, frame=frame) for path in files for frame in _frames_of(path)]
    if not sources:
        raise InputError(f"{folder}: no picture or video file in it; {sorted(READABLE | VIDEOS)} are read")
    return sources


def _frames_of(path: Path) -> range:
    if is_picture(path):
        return range(1)
    return range(0, count_frames(path, FRAMES_PER_VIDEO * FRAME_STRIDE), FRAME_STRIDE)


def read_picture(source: Source) -> Image:
    """RGB (H, W, 3) of a source. A frame beyond a video's end is its last one. InputError if nothing can be read."""
    if source.path is None:
        raise ValueError("a drawn picture has no file")
    return deque(islice(read_rgb(source.path), source.frame + 1), maxlen=1)[0]
