"""OpenVINO reports nothing: no thread, no child process, no connection of its telemetry."""

from __future__ import annotations

import subprocess
import sys

import pytest

from a2n_video.engine.select import has_openvino
from a2n_video.errors import MissingDependencyError


@pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
def test_no_thread_is_left_by_the_import_or_a_conversion() -> None:
    code = (
        "import threading, sys\n"
        "from a2n_video.engine.openvino import converted\n"
        "from a2n_video.net.fuse import fuse\n"
        "from a2n_video.net.model import A2N, A2NConfig\n"
        "converted(fuse(A2N(A2NConfig(n_features=8, n_blocks=1))), (-1, 3, 8, 8))\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "sys.exit(threading.active_count() - 1)\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_a_copy_that_was_loaded_first_is_named_and_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from a2n_video.engine import openvino

    class Refused:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "openvino":
                raise ImportError("versions differ\nsecond line")

    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refused(), *sys.meta_path])
    monkeypatch.setattr(openvino, "find_spec", lambda name: object())
    with pytest.raises(MissingDependencyError, match=r"installed but cannot be loaded.*versions differ second line.*--engine torch"):
        openvino._openvino()
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"not installed; pip install"):
        openvino._openvino()
