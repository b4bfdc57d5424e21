"""What happens to footage on its way into a small video file, seeded: scaling, blur, noise, 4:2:0 and a real encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2n_video.engine.resize import resize_array
from a2n_video.io.rgb import Image
from a2n_video.io.roundtrip import Encoding, through_codec
from a2n_video.media.colorspec import ColorSpec
from a2n_video.training.scene import quantise

Floats = NDArray[np.float32]

# Share, encoder, options that stay, the option that sets quality, its range.
ENCODERS: tuple[tuple[float, str, dict[str, str], str, tuple[int, int]], ...] = (
    (0.48, "libx264", {"preset": "medium"}, "crf", (16, 36)),
    (0.10, "libx264", {"preset": "veryfast"}, "crf", (16, 36)),
    (0.05, "libx264", {"preset": "superfast"}, "crf", (16, 34)),
    (0.07, "libx264", {"preset": "slow", "tune": "film"}, "crf", (16, 36)),
    (0.13, "libx265", {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1:info=0"}, "crf", (16, 36)),
    (0.04, "mpeg2video", {}, "q", (2, 9)),
    (0.03, "mpeg4", {}, "q", (2, 9)),
    (0.10, "libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "5"}, "crf", (20, 46)),
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
        blur=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.08 else 0.0,
        noise=float(rng.uniform(0.4, 2.5)) if rng.random() < 0.1 else 0.0,
        matrix="bt709" if rng.random() < 0.6 else "bt601",
        left_sited=bool(rng.random() < 0.8),
        encoding=sample_encoding(rng),
    )


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
