"""What happens to a picture on its way into a video file, seeded: motion, scaling, blur, noise, 4:2:0 and a real encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2n_video.engine.resize import Window, apply_separable, resize_array, resize_matrix
from a2n_video.io.pictures import Image
from a2n_video.io.roundtrip import Encoding, through_codec
from a2n_video.media.colorspec import ColorSpec

Floats = NDArray[np.float32]

# Share, encoder, options that stay, the option that sets quality, its range.
ENCODERS: tuple[tuple[float, str, dict[str, str], str, tuple[int, int]], ...] = (
    (0.36, "libx264", {"preset": "medium"}, "crf", (16, 36)),
    (0.12, "libx264", {"preset": "veryfast"}, "crf", (16, 36)),
    (0.08, "libx264", {"preset": "superfast"}, "crf", (16, 34)),
    (0.08, "libx264", {"preset": "slow", "tune": "film"}, "crf", (16, 36)),
    (0.14, "libx265", {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1:info=0"}, "crf", (16, 36)),
    (0.06, "mpeg2video", {}, "q", (2, 9)),
    (0.05, "mpeg4", {}, "q", (2, 9)),
    (0.11, "libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "5"}, "crf", (20, 46)),
)
# Share, kernel of the down-scaling.
SCALERS: tuple[tuple[float, str], ...] = ((0.7, "bicubic"), (0.15, "area"), (0.15, "lanczos"))
MATRICES: dict[str, int] = {"bt601": 6, "bt709": 1}  # FFmpeg's numbers


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One way from a large frame to a small one. `encoding` None leaves out the encoder, `subsampled` False 4:2:0 with it."""

    kernel: str = "bicubic"
    blur: float = 0.0  # sigma in pixels of the large frame
    noise: float = 0.0  # sigma in 8-bit steps, on the small frame
    matrix: str = "bt709"
    left_sited: bool = True
    subsampled: bool = True
    encoding: Encoding | None = None


def x264_medium(crf: int) -> Degradation:
    """What the compressed figures are measured on: halved by bicubic, libx264 medium."""
    return Degradation(encoding=Encoding(codec="libx264", options={"preset": "medium", "crf": str(crf)}))


CLEAN = Degradation(subsampled=False)


def sample_encoding(rng: np.random.Generator) -> Encoding:
    shares = np.array([row[0] for row in ENCODERS])
    _, codec, fixed, option, (low, high) = ENCODERS[rng.choice(len(ENCODERS), p=shares / shares.sum())]
    quality = str(rng.integers(low, high, endpoint=True))
    chosen = {"qmin": quality, "qmax": quality} if option == "q" else {option: quality}
    return Encoding(codec=codec, options={**fixed, **chosen})


def sample_degradation(rng: np.random.Generator, *, compressed: bool) -> Degradation:
    """Draw a degradation; equal generators give equal ones. Clean ones are plain bicubic, a quarter of them through 4:2:0."""
    if not compressed:
        return Degradation(subsampled=bool(rng.random() < 0.25))
    kernel = SCALERS[rng.choice(len(SCALERS), p=[share for share, _ in SCALERS])][1]
    return Degradation(
        kernel=kernel,
        blur=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.12 else 0.0,
        noise=float(rng.uniform(0.4, 3.0)) if rng.random() < 0.2 else 0.0,
        matrix="bt709" if rng.random() < 0.6 else "bt601",
        left_sited=bool(rng.random() < 0.8),
        encoding=sample_encoding(rng),
    )


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The stretch of a picture that a camera shows: (x, y, width) of its box at the first frame and at the last, in pixels."""

    first: tuple[float, float, float]
    last: tuple[float, float, float]

    def box(self, index: int, count: int) -> tuple[float, float, float]:
        t = index / max(1, count - 1)
        x, y, width = (a + (b - a) * t for a, b in zip(self.first, self.last, strict=True))
        return x, y, width


def sample_motion(rng: np.random.Generator, picture: tuple[int, int], frame: tuple[int, int], count: int) -> Motion:
    """Draw a pan and zoom over a picture (height, width) for frames of (height, width).

    A box larger than the frame gives a sharp result, a smaller one a soft one, as most video is: at a given crf an encoder does far
    less harm there. One clip in four stands still.
    """
    aspect = frame[0] / frame[1]
    largest = min(picture[1], picture[0] / aspect)
    zoom = rng.uniform(0.45, 1.0) if rng.random() < 0.65 else rng.uniform(1.0, 2.2)
    width = min(frame[1] * zoom, largest)
    last_width = min(width * (1 + rng.uniform(-0.004, 0.004) * count * (rng.random() < 0.4)), largest)
    still = rng.random() < 0.25
    speed = 0.0 if still else rng.exponential(2.0)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0, picture[1] - width), rng.uniform(0, picture[0] - width * aspect)
    end_x = np.clip(x + speed * count * np.cos(angle), 0, picture[1] - last_width)
    end_y = np.clip(y + speed * count * np.sin(angle), 0, picture[0] - last_width * aspect)
    return Motion(first=(x, y, width), last=(x, y, width) if still else (float(end_x), float(end_y), last_width))


def render(picture: Image, motion: Motion, frame: tuple[int, int], count: int) -> list[Image]:
    """The frames (height, width) that the moving box shows, resampled by antialiased bicubic."""
    height, width = frame
    frames = []
    for index in range(count):
        x, y, box = motion.box(index, count)
        top, left, tall = max(0, int(y) - 4), max(0, int(x) - 4), box * height / width
        part = picture[top : int(y + tall) + 5, left : int(x + box) + 5].astype(np.float32)
        rows = resize_matrix(part.shape[0], height, "bicubic", Window(start=y - top, length=tall)).astype(np.float32)
        columns = resize_matrix(part.shape[1], width, "bicubic", Window(start=x - left, length=box)).astype(np.float32)
        frames.append(quantise(apply_separable(rows, columns, part)))
    return frames


def quantise(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    codes: NDArray[np.uint8] = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    return codes


def gaussian_blur(image: Floats, sigma: float) -> Floats:
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, pad, mode="edge")
        length = image.shape[axis]
        image = sum(w * padded.take(range(i, i + length), axis) for i, w in enumerate(weights)).astype(np.float32)
    return image


def shrink(image: Image, scale: int, recipe: Degradation, rng: np.random.Generator) -> Image:
    """The small frame before 4:2:0 and the encoder."""
    floats = image.astype(np.float32)
    if recipe.blur:
        floats = gaussian_blur(floats, recipe.blur)
    small = resize_array(floats, image.shape[0] // scale, image.shape[1] // scale, recipe.kernel)
    if recipe.noise:
        small = small + rng.normal(0, recipe.noise, small.shape)
    return quantise(small)


def degrade(frames: Sequence[Image], scale: int, recipe: Degradation, rng: np.random.Generator) -> list[Image]:
    """Large frames to as many small ones, `scale` times smaller (height and width divide by it, and by 2 again for 4:2:0).

    Equal frames, recipe and generator give equal bytes: the encoders run with one thread.
    """
    small = [shrink(frame, scale, recipe, rng) for frame in frames]
    if not recipe.subsampled:
        return small
    color = ColorSpec(matrix=MATRICES[recipe.matrix], full_range=False, chroma_location=1 if recipe.left_sited else 2)
    return through_codec(small, recipe.encoding, color)
