"""What all tests share: where the reference material lies, and tests that are slow unless asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av.logging
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("A2N_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="slow: run with -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference clips, images and weights, or a skip that says it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is missing ({SHARED.name}; set A2N_SHARED)")
    return SHARED


@pytest.fixture
def card() -> None:
    """A CUDA device, or a skip, or with FAIL_WITHOUT_CUDA=1 a failure."""
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("FAIL_WITHOUT_CUDA is set and there is no CUDA device")
    pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def ffmpeg_stays_silent() -> Iterator[None]:
    """FFmpeg's messages go nowhere once a test is over: a decoder's thread with one waits for the GIL (io/decoding.py: decoding)."""
    yield
    assert av.logging.get_level() is None
