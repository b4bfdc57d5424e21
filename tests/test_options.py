"""What a job is told: wrong values are told at once, times and rates are taken as people write them, and a journal gives all back."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from a2n_video import EncodeOptions, JobOptions, Upscaler, upscale_frames, upscale_video
from a2n_video.cli_options import job_options, parser
from a2n_video.errors import OptionError
from a2n_video.job.planning.plan import check_options
from a2n_video.options import ClusterOptions, ModelOptions, rate_of, seconds_of

PARTS = {f.name: getattr(JobOptions(), f.name) for f in fields(JobOptions)}
CHOICES = {
    name: get_args(kind) for part in PARTS.values() for name, kind in get_type_hints(type(part)).items() if get_origin(kind) is Literal
}


def test_every_choice_is_known() -> None:
    assert sorted(CHOICES) == ["compile", "deinterlace", "dtype", "encoder_backend", "engine", "pipe_format"]


@pytest.mark.parametrize("name", sorted(CHOICES))
@pytest.mark.parametrize("value", ["none", "AUTO", 2, None, ["auto"]])
def test_a_value_that_is_no_choice_is_told(name: str, value: object) -> None:
    with pytest.raises(OptionError) as told:
        JobOptions().with_changes(**{name: value})
    assert str(told.value) == f"{name}: {value!r} is none of {', '.join(CHOICES[name])}"


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_choice_is_taken(name: str) -> None:
    for value in CHOICES[name]:
        assert value in json.dumps(JobOptions().with_changes(**{name: value}).as_json())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("frames", "2", "no whole number"),
        ("frames", 2.0, "no whole number"),
        ("scale", True, "no whole number"),
        ("crf", "18", "no number"),
        ("model", 2, "no text"),
        ("model", None, "no text"),
        ("overwrite", "no", "neither True nor False"),
        ("encoder_options", "g=1", "no mapping"),
        ("devices", 2, "no list of names"),
        ("start", "soon", "no time; write 90.5"),
        ("end", "0:00:01:00", "no time"),
        ("start", -1, "no time"),
        ("end", float("nan"), "no time"),
        ("start", True, "no time"),
        ("fps", "fast", "no frame rate; write 25"),
        ("fps", "25/0", "no frame rate"),
        ("fps", 0, "no frame rate"),
        ("fps", -25.0, "no usual frame rate"),
        ("fps", 24.3, "no usual frame rate"),
        ("fps", True, "no frame rate"),
        ("fps", np.int64(0), "no frame rate"),
        ("fps", float("inf"), "no usual frame rate"),
    ],
)
def test_what_does_not_fit_is_told_with_its_name(name: str, value: object, told: str) -> None:
    with pytest.raises(OptionError) as error:
        JobOptions().with_changes(**{name: value})
    message = str(error.value)
    assert message.startswith(f"{name}: {value!r} is ")
    assert told in message
    assert "\n" not in message


def test_all_faces_tell_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="deinterlace: 'none'"):
        upscale_video(tmp_path / "in.mp4", tmp_path / "out.mp4", deinterlace="none")
    with pytest.raises(OptionError, match="dtype: 'x'"):
        Upscaler(dtype="x")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="dtype: 'x'"):
        list(upscale_frames([np.zeros((4, 4, 3), np.uint8)], model="nearest", dtype="x"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="pipe_format: 'x'"):
        EncodeOptions(pipe_format="x")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="model: 'a2n' is no ModelOptions; single options are given by `with_changes`"):
        JobOptions(model="a2n")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90", Fraction(90)),
        ("0:00:01", Fraction(1)),
        ("1:02:03.25", Fraction(3723) + Fraction(1, 4)),
        (" 1:30 ", Fraction(90)),
        (2, Fraction(2)),
        (0.1, Fraction(1, 10)),
        (1e-05, Fraction(1, 100_000)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.int64(3), Fraction(3)),
        (Decimal("1.25"), Fraction(5, 4)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_times_are_exact(value: object, seconds: Fraction) -> None:
    assert seconds_of(value) == seconds
    options = JobOptions().with_changes(start=value, end=value)
    assert (options.time.start, options.time.end) == (seconds, seconds)
    assert type(options.time.start) is Fraction


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (25, Fraction(25)),
        ("24000/1001", Fraction(24000, 1001)),
        ("23.976", Fraction("23.976")),
        (Fraction(10), Fraction(10)),
        (25.0, Fraction(25)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (np.float64(29.97), Fraction(30000, 1001)),
        (np.float32(29.97), Fraction(30000, 1001)),
        (np.float32(25), Fraction(25)),
        (np.int64(25), Fraction(25)),
    ],
)
def test_rates_are_exact(value: object, rate: Fraction) -> None:
    assert rate_of(value) == rate
    assert type(rate_of(value).numerator) is int
    assert JobOptions().with_changes(fps=value).fidelity.fps == rate


def test_what_can_be_meant_is_taken() -> None:
    import torch

    changes: dict[str, Any] = {
        "weights": Path("w.safetensors"),
        "device": torch.device("cuda", 1),
        "scale": np.int64(3),
        "devices": ["cuda:0", "cuda:1"],
        "encoder_options": {"g": 25},
    }
    options = JobOptions().with_changes(**changes)
    assert options.model == ModelOptions(weights="w.safetensors", device="cuda:1", scale=3)
    assert options.cluster.devices == JobOptions().with_changes(devices="cuda:0, cuda:1").cluster.devices == ("cuda:0", "cuda:1")
    assert options.encode.encoder_options == {"g": "25"}
    json.dumps(options.as_json())


@pytest.mark.parametrize("changes", [{"ray_address": "head:6379"}, {"devices": ("cuda:0",)}, {"devices": "cpu,cpu"}])
def test_naming_a_cluster_or_devices_asks_for_workers(changes: dict[str, Any]) -> None:
    """From Python as on the command line: it is never left aside."""
    assert not JobOptions().cluster.ray and not JobOptions().with_changes(ship=True).cluster.ray
    options = JobOptions().with_changes(**changes)
    assert options.cluster.ray and ClusterOptions(**changes).ray
    told = [text for name, value in changes.items() for text in (f"--{name.replace('_', '-')}", ",".join(options.cluster.devices) or value)]
    assert job_options(parser().parse_args(["in", "out", *told])) == options


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_errors": -1}, "--max-errors -1: at least 0"),
        ({"stall_timeout": -1}, "--stall-timeout -1: at least 0"),
        ({"stall_timeout": float("nan")}, "--stall-timeout nan: at least 0"),
        ({"segment_frames": -5}, "--segment-frames -5: at least 0"),
        ({"max_pixels": 0}, "--max-pixels 0: at least 1"),
        ({"cpus_per_worker": 0}, "--cpus-per-worker 0: at least 1"),
        ({"frames": 0}, "--frames 0: at least 1"),
    ],
)
def test_what_is_too_small_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        check_options(JobOptions().with_changes(**changes))


def test_the_least_is_taken() -> None:
    check_options(JobOptions().with_changes(max_errors=0, stall_timeout=0, segment_frames=0, max_pixels=1, cpus_per_worker=1, frames=1))


def test_options_travel_to_workers() -> None:
    options = JobOptions().with_changes(start="0:01", end=2.5, fps=29.97, crf=18, devices=("cpu",), encoder_options={"g": "25"}, frames=3)
    assert pickle.loads(pickle.dumps(options)) == options
