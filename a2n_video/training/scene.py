"""What a camera gives before anybody makes it small, seeded: pan and zoom, things that move their own way, grain, its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from a2n_video.engine.resize import Window, apply_separable, resize_array, resize_matrix
from a2n_video.io.rgb import Image
from a2n_video.io.roundtrip import Encoding, through_codec

SOFT: Final = 0.6  # share of views that enlarge their picture
WIDEST: Final = 2.2  # pixels of the picture at most that become one of a frame in the other views
SOURCE_CRF: Final = (16, 26)  # of the encoder that footage went through before it reached anybody
GRAIN: Final = (0.5, 4.0)  # sigma in 8-bit steps
SPEED: Final = 3.0  # mean of a pan, in pixels of the large frame for each frame
REACH: Final = 3.0  # mean of how far a swaying view is bent, in pixels of the large frame
STRAIN: Final = 0.1  # that at most, in cells of the field: more would fold the picture


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The stretch of a picture that a camera shows: (x, y, width) of its box at the first frame and at the last, in pixels."""

    first: tuple[float, float, float]
    last: tuple[float, float, float]

    def box(self, index: float, count: int) -> tuple[float, float, float]:
        t = min(1.0, index / max(1, count - 1))
        x, y, width = (a + (b - a) * t for a, b in zip(self.first, self.last, strict=True))
        return x, y, width


def sample_motion(
    rng: np.random.Generator, picture: tuple[int, int], frame: tuple[int, int], count: int, soft: float = SOFT, widest: float = WIDEST
) -> Motion:
    """Draw a pan and zoom over a picture (height, width) for `count` frames of (height, width).

    A box larger than the frame gives a sharp result, a smaller one a soft one, as most video is: at a given crf an encoder does far
    less harm there. One clip in four stands still.
    """
    aspect = frame[0] / frame[1]
    largest = min(picture[1], picture[0] / aspect)
    zoom = rng.uniform(0.45, 1.0) if rng.random() < soft else rng.uniform(1.0, widest)
    width = min(frame[1] * zoom, largest)
    last_width = min(width * (1 + rng.uniform(-0.004, 0.004) * count * (rng.random() < 0.4)), largest)
    still = rng.random() < 0.25
    speed = 0.0 if still else rng.exponential(SPEED)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0, picture[1] - width), rng.uniform(0, picture[0] - width * aspect)
    end_x = np.clip(x + speed * count * np.cos(angle), 0, picture[1] - last_width)
    end_y = np.clip(y + speed * count * np.sin(angle), 0, picture[0] - last_width * aspect)
    return Motion(first=(x, y, width), last=(x, y, width) if still else (float(end_x), float(end_y), last_width))


def render(picture: Image, motion: Motion, frame: tuple[int, int], count: int, exposures: int = 1) -> list[Image]:
    """The frames (height, width) that the moving box shows, resampled by antialiased bicubic.

    With several `exposures` each frame is their mean while the shutter is open, half of the time to the next one: what moves fast is
    smeared along its way.
    """
    exposures = 1 if motion.first == motion.last else exposures
    times = [[index + k / (2 * exposures) for k in range(exposures)] for index in range(count)]
    return [quantise(np.mean([_view(picture, motion.box(t, count), frame) for t in open_at], axis=0)) for open_at in times]


def _view(picture: Image, box: tuple[float, float, float], frame: tuple[int, int]) -> NDArray[np.floating]:
    (x, y, wide), (height, width) = box, frame
    top, left, tall = max(0, int(y) - 4), max(0, int(x) - 4), wide * height / width
    part = picture[top : int(y + tall) + 5, left : int(x + wide) + 5].astype(np.float32)
    rows = resize_matrix(part.shape[0], height, "bicubic", Window(start=y - top, length=tall)).astype(np.float32)
    columns = resize_matrix(part.shape[1], width, "bicubic", Window(start=x - left, length=wide)).astype(np.float32)
    return apply_separable(rows, columns, part)


def quantise(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    codes: NDArray[np.uint8] = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    return codes


def blob(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """A mask (height, width, 3), 0 or 255 with soft edges, of a few rounded areas that cover about a third."""
    field = resize_array(rng.normal(size=(5, 7, 1)), *size)
    edge = np.quantile(field, 0.67)
    hardness = rng.uniform(4, 40) / (field.max() - field.min())
    return quantise(np.repeat(255 * np.clip((field - edge) * hardness + 0.5, 0, 1), 3, axis=2))


def put_in_front(rng: np.random.Generator, behind: Sequence[Image], picture: Image, soft: float = SOFT) -> list[Image]:
    """Parts of another picture moving over the frames, so that blocks are uncovered as they are in real footage."""
    size, count = behind[0].shape[:2], len(behind)
    front = render(picture, sample_motion(rng, picture.shape[:2], size, count, soft), size, count)
    mask = blob(rng, (size[0] * 2, size[1] * 2))
    masks = render(mask, sample_motion(rng, mask.shape[:2], size, count, 0.0), size, count)
    shares = [m.astype(np.float32) / 255 for m in masks]
    return [quantise(b + (f.astype(np.float32) - b) * m) for b, f, m in zip(behind, front, shares, strict=True)]


def sway(rng: np.random.Generator, frames: Sequence[Image]) -> list[Image]:
    """Frames bent by a smooth field that swells and turns, as water, fire, leaves and cloth do: no block of them is a shifted older one.

    Resampled bicubically, the border repeated.
    """
    height, width = frames[0].shape[:2]
    finest = int(rng.integers(4, 12))
    field = resize_array(rng.normal(size=(finest, finest + 2, 4)), height, width)  # x and y of two bends, a quarter of a turn apart
    field *= min(rng.exponential(REACH), STRAIN * height / finest) / field.std() * np.array([2 / width, 2 / height] * 2)
    turn = 2 * np.pi / rng.uniform(6, 40) * np.arange(len(frames)) + rng.uniform(0, 2 * np.pi)
    bent = [field[..., :2] * np.cos(t) + field[..., 2:] * np.sin(t) for t in turn]
    ys, xs = ((np.arange(n) + 0.5) * 2 / n - 1 for n in (height, width))
    straight = np.stack(np.meshgrid(xs, ys), axis=-1)
    grid = torch.from_numpy((straight + np.stack(bent)).astype(np.float32))
    stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
    shown = grid_sample(stack, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return list(quantise(shown.permute(0, 2, 3, 1).numpy()))


def recode(rng: np.random.Generator, frames: Sequence[Image]) -> list[Image]:
    """Frames as a camera or a site hands them out: with grain of their own on half of the clips, through libx264 once.

    Most video that anybody enlarges was compressed before at full size, which took its finest detail and its noise.
    """
    sigma = float(rng.uniform(*GRAIN)) if rng.random() < 0.5 else 0.0
    grained = [quantise(frame + rng.normal(0, sigma, frame.shape)) for frame in frames] if sigma else list(frames)
    quality = str(rng.integers(*SOURCE_CRF, endpoint=True))
    return through_codec(grained, Encoding(codec="libx264", options={"preset": "veryfast", "crf": quality}))
