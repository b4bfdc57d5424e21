"""Upscale one picture: python examples/upscale_image.py in.png out.png [model]"""

import sys

import av

from a2n_video import upscale_frames

source, dest, *model = sys.argv[1:]
with av.open(source) as container:
    picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
(large,) = upscale_frames([picture], scale=2, model=model[0] if model else "auto")
av.VideoFrame.from_ndarray(large, format="rgb24").save(dest)
print(f"{picture.shape[1]}x{picture.shape[0]} -> {large.shape[1]}x{large.shape[0]}")
