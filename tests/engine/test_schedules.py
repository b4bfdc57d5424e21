"""The pipeline's orderings on a simulated device: whole under any legal schedule, and every single edge needed.

One driver plays the three host threads in an order that the seed draws, and the device runs late in an order of its own, so a
seed that fails fails again. It says nothing about a driver or a card: the `cuda` tests do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import get_args

import pytest

from a2n_video.engine.backend import Event, StreamName
from a2n_video.engine.channel import Hub
from a2n_video.engine.pipeline import Pipeline, Steps
from a2n_video.engine.protocol import Rows
from a2n_video.engine.rings import HOST_OUTPUTS, INPUTS, Edge, HostOutput, InputSlot, Job
from tests.engine.pipelines import CHECKED, GEOMETRY, OVERFLOWS, PLAIN, Batches, batches, numbers
from tests.engine.simulated_device import SimulatedDevice, TracedChannel

pytestmark = pytest.mark.schedules
BATCH = 2
SIZES = [2, 2, 1, 2, 2, 2, 1, 2, 2, 2]


class Without(Pipeline):
    """A pipeline with one edge taken out."""

    missing: Edge

    def hold_stream(self, edge: Edge, event: Event, stream: StreamName) -> None:
        if edge != self.missing:
            super().hold_stream(edge, event, stream)

    def hold_host(self, edge: Edge, event: Event) -> None:
        if edge != self.missing:
            super().hold_host(edge, event)


class WithoutInRedo(Pipeline):
    """One edge is missing, only while frames are computed a second time."""

    missing: Edge
    redoing = False

    def redo(self, job: Job, bad: Sequence[int]) -> None:
        self.redoing = True
        super().redo(job, bad)
        self.redoing = False

    def hold_stream(self, edge: Edge, event: Event, stream: StreamName) -> None:
        if not (self.redoing and edge == self.missing):
            super().hold_stream(edge, event, stream)


class LendingSlots(Pipeline):
    """A pipeline that hands out its slots' memory instead of copies."""

    def rows(self, job: Job) -> Rows:
        return self.backend.host_view(job.host.rows, write=False)[: job.count]


@dataclass
class Driver:
    """Plays the packing, launching and collecting threads of accelerator.py, one step at a time."""

    device: SimulatedDevice
    pipeline: Pipeline
    todo: Batches
    results: list[Rows] = field(default_factory=list)
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        self.hub = Hub()
        self.free_inputs: TracedChannel[InputSlot] = TracedChannel(self.hub, self.device)
        self.free_outputs: TracedChannel[HostOutput] = TracedChannel(self.hub, self.device)
        self.inbox: TracedChannel[Job | tuple[Job, list[int]]] = TracedChannel(self.hub, self.device)
        self.redone: TracedChannel[Job] = TracedChannel(self.hub, self.device)
        self.launched: TracedChannel[Job] = TracedChannel(self.hub, self.device)
        self.packed: list[tuple[InputSlot, int]] = []
        self.submitted = 0
        self.awaiting_redo = False
        with self.device.acting("launch"):
            for slot in self.pipeline.inputs:
                self.free_inputs.put(slot)
            for host in self.pipeline.outputs:
                self.free_outputs.put(host)

    def run(self) -> list[Rows]:
        total = len(self.todo)
        while len(self.results) < total:
            possible = {
                "pack": bool(self.todo and len(self.free_inputs) and not self.packed),
                "post": bool(self.packed and len(self.free_outputs)),
                "launch": bool(len(self.inbox)),
                "collect": bool(len(self.redone) if self.awaiting_redo else len(self.launched)),
            }
            step = self.device.random.choice([name for name, can in possible.items() if can])
            with self.device.acting("submit" if step in ("pack", "post") else step):
                getattr(self, step)()
            self.most_in_flight = max(self.most_in_flight, self.submitted - len(self.results))
        return self.results

    def pack(self) -> None:
        slot, frames = self.free_inputs.take(), self.todo.pop(0)
        self.pipeline.fill(slot, frames)
        self.packed.append((slot, len(frames)))

    def post(self) -> None:
        slot, count = self.packed.pop()
        self.submitted += 1
        self.inbox.put(Job(first=self.submitted, count=count, source=slot, host=self.free_outputs.take(), future=Future()))

    def launch(self) -> None:
        message = self.inbox.take()
        if isinstance(message, tuple):
            self.pipeline.redo(*message)
            self.redone.put(message[0])
            return
        self.pipeline.launch(message)
        self.free_inputs.put(message.source)
        self.launched.put(message)

    def collect(self) -> None:
        job = (self.redone if self.awaiting_redo else self.launched).take()
        self.awaiting_redo = bool(bad := self.pipeline.bad_rows(job))
        if self.awaiting_redo:
            self.inbox.put((job, bad))
            return
        self.results.append(self.pipeline.rows(job))
        self.free_outputs.put(job.host)


def drive(seed: int, kind: type[Pipeline] = Pipeline, steps: Steps = PLAIN, first: int = 1) -> tuple[SimulatedDevice, Driver]:
    device = SimulatedDevice(seed)
    with device.acting("launch"):
        pipeline = kind(device, GEOMETRY, steps, BATCH)
    driver = Driver(device, pipeline, batches(SIZES, first))
    driver.run()
    return device, driver


def without(edge: Edge) -> type[Pipeline]:
    return type(f"Without{edge}", (Without,), {"missing": edge})


def frames_of(driver: Driver) -> list[int]:
    return [number for rows in driver.results for number in numbers(rows)]


@pytest.mark.parametrize("block", range(10))
def test_every_legal_schedule_keeps_every_frame(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        device, driver = drive(seed)
        assert not device.races, f"seed {seed}: {device.races[0]}"
        assert frames_of(driver) == list(range(1, sum(SIZES) + 1)), f"seed {seed}"
        assert driver.most_in_flight <= HOST_OUTPUTS


@pytest.mark.parametrize("block", range(4))
def test_schedules_with_frames_computed_twice(block: int) -> None:
    expected = [n + 1000 * (n >= OVERFLOWS) for n in range(OVERFLOWS - 9, OVERFLOWS - 9 + sum(SIZES))]
    for seed in range(block * 25, block * 25 + 25):
        device, driver = drive(seed, steps=CHECKED, first=OVERFLOWS - 9)
        assert not device.races, f"seed {seed}: {device.races[0]}"
        assert frames_of(driver) == expected, f"seed {seed}"


@pytest.mark.parametrize("edge", get_args(Edge))
def test_an_edge_taken_out_is_caught_in_every_seed(edge: Edge) -> None:
    blind = [seed for seed in range(100) if not drive(seed, without(edge))[0].races]
    assert not blind, f"without {edge} nothing was noticed in seeds {blind}"


@pytest.mark.parametrize(("edge", "least"), [("E4", 50), ("E5", 100)])
def test_an_edge_taken_out_of_the_second_computation_is_caught(edge: Edge, least: int) -> None:
    """E4 only matters there in schedules that launch another batch between the two computations."""
    kind = type("Broken", (WithoutInRedo,), {"missing": edge})
    caught = sum(bool(drive(seed, kind, CHECKED, OVERFLOWS - 9)[0].races) for seed in range(100))
    assert caught >= least


@pytest.mark.parametrize("edge", get_args(Edge))
def test_an_edge_taken_out_spoils_frames(edge: Edge) -> None:
    """The clocks are no invention: without the edge, wrong frames come out under some schedule."""

    def spoils(seed: int) -> bool:
        rows = [row for batch in drive(seed, without(edge))[1].results for row in batch.tolist()]
        return rows != [[number] * GEOMETRY.target.samples for number in range(1, sum(SIZES) + 1)]

    assert any(spoils(seed) for seed in range(100))


def test_a_lent_slot_is_caught() -> None:
    for seed in range(50):
        driver = drive(seed, LendingSlots)[1]
        rows = [row for batch in driver.results for row in batch.tolist()]
        assert rows != [[number] * GEOMETRY.target.samples for number in range(1, sum(SIZES) + 1)]


def test_the_rings_are_not_equal() -> None:
    """With as many inputs as host outputs, E1 and E2 follow from a free host output and the tests above would be blind."""
    assert INPUTS < HOST_OUTPUTS


def test_a_seed_repeats_itself() -> None:
    first, again = (drive(7, without("E1"))[0].races for _ in range(2))
    assert first == again
    assert first
