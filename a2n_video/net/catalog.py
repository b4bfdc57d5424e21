"""Which models there are, and the rule for `auto`: a table, without torch, so that any face can ask at no cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from a2n_video.errors import UnknownModelError, WeightsError

DATA: Final = Path(__file__).parent / "data"
NEAREST: Final = "nearest"
AUTO: Final = "auto"
SCALES: Final = (2, 3, 4)
# `auto` takes the first of these that is bundled for the scale.
AUTO_ORDER: Final = ("a2n-video", "a2n")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One entry of the table. `file` is None for `nearest`, which has no network."""

    name: str
    scale: int
    summary: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.name:10} x{self.scale}  {self.summary}"

    @property
    def path(self) -> Path | None:
        return DATA / self.file if self.file else None


MODELS: Final = (
    Model(name="a2n", scale=2, summary="the paper's network on clean input", file="a2n_x2.safetensors"),
    Model(name="a2n", scale=3, summary="the paper's network on clean input", file="a2n_x3.safetensors"),
    Model(name="a2n", scale=4, summary="the paper's network on clean input", file="a2n_x4.safetensors"),
    Model(name="a2n-tiny", scale=2, summary="small and quick, clean and compressed input", file="a2n-tiny_x2.safetensors"),
    Model(name="a2n-video", scale=2, summary="the paper's network on clean and compressed input", file="a2n-video_x2.safetensors"),
    Model(name="a2n-video", scale=4, summary="the paper's network on clean and compressed input", file="a2n-video_x4.safetensors"),
    *(Model(name=NEAREST, scale=scale, summary="repeats pixels; for trying a pipeline", file=None) for scale in SCALES),
)


def available_models() -> list[Model]:
    """Every bundled model, `nearest` among them, sorted by name and scale."""
    return sorted(MODELS, key=lambda model: (model.name, model.scale))


def find_model(name: str, scale: int) -> Model:
    """The table's entry. UnknownModelError, with what there is, if no such model is bundled for that scale; `auto` is not an entry."""
    for model in MODELS:
        if (model.name, model.scale) == (name, scale):
            return model
    scales = [model.scale for model in MODELS if model.name == name]
    what = f"model {name!r} is not bundled for scale {scale}, only for {scales}" if scales else f"no model is called {name!r}"
    raise UnknownModelError(f"{what}; there are: {_listing()}; weights of your own can be given as a file")


def resolve_model(name: str, scale: int) -> str:
    """The model's name, with `auto` settled: `a2n-video` where it is bundled for that scale, else `a2n`.

    UnknownModelError if there is no such model for that scale.
    """
    if name == AUTO:
        bundled = {model.name for model in MODELS if model.scale == scale}
        name = next((candidate for candidate in AUTO_ORDER if candidate in bundled), AUTO_ORDER[-1])
    return find_model(name, scale).name


def weights_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hex. WeightsError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def _listing() -> str:
    names = sorted({model.name for model in MODELS})
    return ", ".join(f"{name} (x{', x'.join(str(m.scale) for m in available_models() if m.name == name)})" for name in names)
