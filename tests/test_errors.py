"""What errors say to whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from a2n_video import Upscaler, upscale_frames, upscale_video
from a2n_video.errors import A2NVideoError, DeviceError, named_as_in_python
from a2n_video.job.planning.plan import prepare
from a2n_video.options import JobOptions
from tests.made import make_source


def test_options_are_named_as_python_has_them_and_nothing_else_is_changed() -> None:
    said = "--max-errors 3 (or --ray): see --list-devices; my--file.mkv, a---b, -- x"
    with pytest.raises(DeviceError) as caught, named_as_in_python():
        raise DeviceError(said, 5)
    assert caught.value.args == ("max_errors 3 (or ray): see --list-devices; my--file.mkv, a---b, -- x", 5)
    with pytest.raises(ValueError, match="--scale"), named_as_in_python():
        raise ValueError("--scale of somebody else")


def test_each_face_names_options_in_its_own_way(tmp_path: Path) -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    source, there = make_source(tmp_path / "in.mkv", pts=range(3)), tmp_path / "there.mkv"
    there.touch()
    faces = {
        "scale 5: the scale is": lambda: list(upscale_frames([frame], scale=5)),
        "batch_size 0: at least": lambda: Upscaler("nearest", batch_size=0)(_tensor(0)),
        "device nonsense: no such": lambda: Upscaler("a2n-tiny", device="nonsense")(_tensor(1)),
        "try dtype float32 or device cpu": lambda: Upscaler("a2n-tiny")(torch.full((1, 3, 8, 8), 3e38)),
        "add overwrite to replace": lambda: upscale_video(source, there, model="nearest"),
        "--overwrite": lambda: prepare(source, there, JobOptions().with_changes(model="nearest")),  # for the command line
    }
    for told, call in faces.items():
        with pytest.raises(A2NVideoError, match=told) as caught:
            call()
        assert told.startswith("--") or "--" not in str(caught.value)


def _tensor(count: int) -> torch.Tensor:
    return torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
