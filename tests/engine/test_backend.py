"""What the torch backend asks of torch, told by stand-ins: which stream is current when, and nothing but generic streams and events."""

from __future__ import annotations

import re

import pytest
import torch

from a2n_video.engine.backend import STREAMS, TorchBackend, copy_all
from tests.conftest import ROOT


class FakeStream:
    made = 0

    def __init__(self, device: torch.device) -> None:
        FakeStream.made += 1
        self.name = STREAMS[(FakeStream.made - 1) % 3]


class FakeEvent:
    def __init__(self, device: torch.device) -> None:
        self.calls: list[str] = []

    def record(self, stream: FakeStream) -> None:
        self.calls.append(f"record {stream.name}")

    def wait(self, stream: FakeStream) -> None:
        self.calls.append(f"{stream.name} waits")

    def synchronize(self) -> None:
        self.calls.append("host waits")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of torch.accelerator."""
    asked: list[str] = []
    FakeStream.made = 0
    monkeypatch.setattr(torch, "Stream", FakeStream)
    monkeypatch.setattr(torch, "Event", FakeEvent)
    monkeypatch.setattr(torch.accelerator, "set_stream", lambda stream: asked.append(f"on {stream.name}"))
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: asked.append(f"device {index}"))
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: asked.append("synchronize"))
    return asked


def test_work_runs_with_its_stream_current(calls: list[str]) -> None:
    backend = TorchBackend(torch.device("cuda:1"))
    backend.bind()
    for stream in ("download", "upload", "compute"):
        backend.run(stream, lambda source, target: calls.append("work"), (torch.zeros(1),), (torch.zeros(1),))
    assert calls == ["device 1", "on download", "work", "on upload", "work", "on compute", "work"]


def test_an_event_orders_the_streams_it_names(calls: list[str]) -> None:
    backend = TorchBackend(torch.device("cuda"))
    backend.bind()
    event = backend.event()
    event.record("upload")
    event.block("compute")
    event.synchronize()
    assert event._event.calls == ["record upload", "compute waits", "host waits"]  # type: ignore[attr-defined]


def test_the_guard_is_on_around_computation_alone(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mode = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", mode.append)
    backend = TorchBackend(torch.device("cuda"))
    backend.bind()
    backend.guard_syncs = True
    during = {}
    for stream in STREAMS:
        backend.run(stream, lambda name: during.update({name: mode[-1]}), (stream,), ())  # type: ignore[arg-type]
    assert during == {"upload": "default", "compute": "error", "download": "default"}
    assert mode[-1] == "default"


def test_copies_do_not_hold_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, source, non_blocking=False: asked.append((self.tolist(), non_blocking)))
    copy_all(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.full((1,), 2.0))
    assert asked == [([1.0], True), ([2.0], True)]


@pytest.mark.parametrize("path", sorted((ROOT / "a2n_video" / "engine").glob("*.py")), ids=lambda path: path.name)
def test_only_generic_streams_and_events(path) -> None:  # type: ignore[no-untyped-def]
    """A torch.cuda or torch.xpu one beside a generic one drops a wait without a word; record_stream would hide a wrong owner."""
    assert not re.search(r"torch\.(cuda|xpu)\.(Stream|Event|stream|current_stream|set_stream)\b|\.record_stream\(", path.read_text())
