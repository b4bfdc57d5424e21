"""Upscale a file from Python, with a line of progress: python examples/upscale_file.py in.mp4 out.mp4 [model]"""

import sys

from a2n_video import upscale_video

source, dest, *model = sys.argv[1:]
result = upscale_video(
    source,
    dest,
    model=model[0] if model else "auto",
    scale=2,
    crf=18,
    overwrite=True,
    on_progress=lambda frames: print(f"\r{frames} frames", end="", file=sys.stderr),
)
print(f"\n{result.verified}", file=sys.stderr)
