"""Upscale frames in a loop: any source of RGB arrays, here a made one; python examples/upscale_arrays.py [model]"""

import sys
from collections.abc import Iterator

import numpy as np

from a2n_video import upscale_frames


def camera(count: int) -> Iterator[np.ndarray]:
    """A moving gradient, as a camera or a renderer would give it: (height, width, 3), uint8."""
    y, x = np.mgrid[0:90, 0:160]
    for number in range(count):
        yield np.stack([x + number, y + 2 * number, x + y], axis=2).astype(np.uint8)


model = sys.argv[1] if len(sys.argv) > 1 else "auto"
for number, frame in enumerate(upscale_frames(camera(5), scale=2, model=model)):
    print(number, frame.shape, frame.dtype)
