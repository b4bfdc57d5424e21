"""What becomes of everything in the source: one fate for every stream, chapter list, attachment, tag and side data. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal

from a2n_video.errors import OptionError

Container = Literal["mkv", "mp4", "mov", "webm", "ts", "avi", "nut", "y4m"]
Fate = Literal["upscaled", "copied", "converted", "dropped"]

CONTAINER_OF_SUFFIX: Final[dict[str, Container]] = {
    ".mkv": "mkv",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
    ".ts": "ts",
    ".m2ts": "ts",
    ".avi": "avi",
    ".nut": "nut",
    ".y4m": "y4m",
}


@dataclass(frozen=True, kw_only=True)
class StreamFate:
    """What becomes of one thing. `index` is the source stream's, None for what is no stream (chapters, tags, side data)."""

    what: str  # "audio 1 (aac, deu)", "chapters (12)", "Dolby Vision metadata"
    kind: str
    fate: Fate
    index: int | None = None
    to: str | None = None  # the codec it is converted to
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """The fates of all, for one container."""

    container: Container
    fates: tuple[StreamFate, ...]

    def of_stream(self, index: int) -> StreamFate | None:
        """The fate of a source stream, None for one the plan does not name."""
        return next((fate for fate in self.fates if fate.index == index), None)

    @property
    def losses(self) -> tuple[StreamFate, ...]:
        return tuple(fate for fate in self.fates if fate.fate == "dropped")


def container_of(dest: PurePath) -> Container:
    """The container an output name asks for, by its suffix in any case; an unknown one is an OptionError."""
    container = CONTAINER_OF_SUFFIX.get(dest.suffix.lower())
    if container is None:
        known = " ".join(sorted(CONTAINER_OF_SUFFIX))
        raise OptionError(f"{dest.name}: no container is known for {dest.suffix or 'a name without extension'!r}; use one of {known}")
    return container
