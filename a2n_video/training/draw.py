"""Pictures that the photo set lacks: text, line art and flat shading, drawn from a seed."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from a2n_video.errors import MissingDependencyError
from a2n_video.io.rgb import Image

SIZE = (768, 1024)
OVERSAMPLING = 2
LETTERS = string.ascii_letters * 3 + string.digits + string.punctuation


@cache
def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image as pictures
        from PIL import ImageDraw, ImageFont
    except ImportError as error:
        raise MissingDependencyError("drawing training pictures needs Pillow: pip install a2n-video[plots], or give --drawn 0") from error
    return pictures, ImageDraw, ImageFont


@cache
def font_files() -> tuple[Path, ...]:
    """The typefaces that come with matplotlib; text can be drawn wherever the trainer's plots can."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError("drawing text needs matplotlib's fonts: pip install a2n-video[plots], or give --drawn 0") from error
    return tuple(sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf")))


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    if rng.random() < 0.3:
        return (int(rng.integers(0, 256)),) * 3
    return tuple(int(c) for c in rng.integers(0, 256, 3))


def _shapes(draw: Any, rng: np.random.Generator, width: int, height: int) -> None:
    """Flat areas with dark outlines, as in cel animation."""
    for _ in range(int(rng.integers(12, 40))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(10, 220)
        fill, outline = _colour(rng), _colour(rng) if rng.random() < 0.4 else (0, 0, 0)
        line = int(rng.integers(0, 8))
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=fill, outline=outline, width=line)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            draw.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a in angles], fill=fill, outline=outline, width=line)
        else:
            draw.rectangle((x - r, y - r / 2, x + r, y + r / 2), fill=fill, outline=outline, width=line)


def _lines(draw: Any, rng: np.random.Generator, width: int, height: int) -> None:
    """Thin curves and hatching."""
    for _ in range(int(rng.integers(10, 50))):
        t = np.linspace(0, 1, 40)
        control = rng.uniform((0, 0), (width, height), (4, 2))
        basis = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
        draw.line([tuple(p) for p in basis @ control], fill=_colour(rng), width=int(rng.integers(1, 9)), joint="curve")
    for _ in range(int(rng.integers(0, 4))):
        x, y, step, length = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 16), rng.uniform(40, 200)
        slant, fill = rng.uniform(-1, 1), _colour(rng)
        for k in range(24):
            draw.line((x + k * step, y, x + k * step + slant * length, y + length), fill=fill, width=int(rng.integers(1, 4)))


def _text(draw: Any, rng: np.random.Generator, width: int, height: int) -> None:
    fonts = font_files()
    for _ in range(int(rng.integers(8, 40))):
        font = _pillow()[2].truetype(str(fonts[rng.integers(len(fonts))]), int(rng.integers(18, 110)))
        words = "".join(rng.choice(list(LETTERS + "    "), int(rng.integers(3, 40))))
        border = int(rng.integers(0, 4)) if rng.random() < 0.4 else 0
        place = (rng.uniform(-50, width), rng.uniform(0, height))
        draw.text(place, words, font=font, fill=_colour(rng), stroke_width=border, stroke_fill=_colour(rng))


def draw_picture(seed: int) -> Image:
    """RGB (768, 1024, 3), the same for the same seed: a shaded or flat ground, then shapes, lines and text over one another."""
    pictures, drawing, _ = _pillow()
    rng = np.random.default_rng([seed, 0xD2A3])
    height, width = (side * OVERSAMPLING for side in SIZE)
    ramp = np.linspace(0, 1, height)[:, None, None] if rng.random() < 0.5 else np.linspace(0, 1, width)[None, :, None]
    first, second = np.array(_colour(rng)), np.array(_colour(rng))
    ground = np.broadcast_to(first + (second - first) * ramp * (rng.random() < 0.6), (height, width, 3))
    canvas = pictures.fromarray(ground.astype(np.uint8))
    draw = drawing.Draw(canvas)
    for layer in rng.permutation([_shapes, _lines, _text]):  # type: ignore[arg-type]
        if rng.random() < 0.75:
            layer(draw, rng, width, height)
    return np.asarray(canvas.resize((SIZE[1], SIZE[0]), pictures.Resampling.BOX))
