"""The object behind all three faces: frames of any kind in, the same kind out, through one engine for each geometry."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakSet

import numpy as np

from a2n_video.engine.owned import LEFT_BEHIND, left_behind
from a2n_video.engine.protocol import Engine, EngineStats, Geometry, Rows
from a2n_video.engine.select import check_numbers, open_engine, resolve_plan
from a2n_video.errors import DeviceError, named_as_in_python
from a2n_video.frames import Adapter, FrameT, adapter_of, is_interlaced
from a2n_video.media.planes import PlaneFormat, Planes, Samples
from a2n_video.options import Dtype, ExecutionPlan, ModelOptions

if TYPE_CHECKING:
    import torch

_BATCHES_IN_FLIGHT = 3
_PACKAGE: Final = str(Path(__file__).parent)
_INTERLACED: Final = (
    "an interlaced frame came: its two fields are upscaled as one picture, and the result is not marked as interlaced; "
    "deinterlace before (FFmpeg's bwdif does), or give the file to upscale_video, which sees to it"
)
_CLOSED: Final = (
    "the upscaler was closed, or another iteration failed in it, while these frames were under way; take all results before `close`"
)


@dataclass(frozen=True)
class _Arrival:
    """A frame as it came: what it is, a copy of its samples, and what its result must know of it."""

    adapter: Adapter
    geometry: Geometry
    planes: Planes
    note: Any


@dataclass(eq=False)
class _Batch:
    """Frames on their way to the engine together, and the future of their rows once they are under way."""

    engine: Engine
    frames: list[Planes] = field(default_factory=list)
    future: Future[Rows] | None = None

    @property
    def full(self) -> bool:
        return len(self.frames) >= self.engine.batch_size

    def takes(self, engine: Engine) -> bool:
        """Whether one more frame for that engine may join."""
        return self.engine is engine and self.future is None and not self.full

    def send(self) -> Future[Rows]:
        if self.future is None:
            self.future = self.engine.submit(self.frames)
            self.frames = []
        return self.future

    def lose(self) -> None:
        """In a process forked off: what the engine was given comes out in the other one."""
        self.frames, self.future = [], Future()
        self.future.set_exception(DeviceError(LEFT_BEHIND))


@dataclass
class _Ticket:
    """One source frame and where its result will lie; a repeated frame shares the row of the one before it."""

    note: Any  # of the source frame, for whoever wraps the result
    batch: _Batch
    row: int
    target: PlaneFormat

    def result(self) -> Samples:
        rows: Rows = self.batch.send().result()
        if rows.ndim != 2 or len(rows) <= self.row or rows.shape[1] != self.target.samples or rows.dtype != self.target.dtype:
            raise DeviceError(f"the engine gave {rows.dtype} of shape {rows.shape} for frames of {self.target}; please report this")
        return rows[self.row]  # type: ignore[no-any-return]


class Upscaler:
    """An upscaler for one model and scale; engines are made for each geometry that comes, the last one is kept.

    Used from one thread at a time. Frames come out in the order they went in, one for one; a frame equal to the one before it costs
    nothing. Several iterations may take turns; where their sizes differ, each turn ends one engine and opens another, which takes its
    time: an Upscaler for each size is quicker, and takes the memory of both.

    A value of the wrong kind is an OptionError at once; UnknownModelError, WeightsError, DeviceError and other OptionErrors come when the
    first geometry is known. After frames that failed it goes on with a new engine. `close` ends the engine's thread, and so does leaving
    the `with`; an iteration that then misses frames it had given the engine says so with a DeviceError. What is not closed ends when it is
    collected, or with the program. In a process forked off it opens an engine of its own; an iteration that was under way is a DeviceError
    there.
    """

    def __init__(
        self,
        model: str = "auto",
        *,
        scale: int = 2,
        weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: Dtype = "auto",
        batch_size: int | None = None,
    ) -> None:
        open_kinds: dict[str, Any] = {"weights": weights, "device": device}  # made texts there, as everything is settled there
        self.options = ModelOptions(model=model, scale=scale, dtype=dtype, batch_size=batch_size, **open_kinds)
        self.plan: ExecutionPlan | None = None
        self.layout: PlaneFormat | None = None
        self.repeated = 0  # frames that reused the result before them
        self._for_job = False
        self._engine: Engine | None = None
        self._batches: WeakSet[_Batch] = WeakSet()  # those that an iteration still waits for

    @classmethod
    def from_options(cls, options: ModelOptions, plan: ExecutionPlan | None = None, layout: PlaneFormat | None = None) -> Upscaler:
        """An upscaler for a job: its options, the plan settled for it (obeyed, not resolved again), and the result's layout.

        It does not warn of interlaced frames, the job has settled what is done about them; and its errors name options as the job does.
        """
        upscaler = cls(options.model, scale=options.scale)
        upscaler.options, upscaler.plan, upscaler.layout = options, plan, layout
        upscaler._for_job = True
        return upscaler

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        engine, self._engine = self._present(), None
        if engine is not None:
            engine.close()

    def engine(self, geometry: Geometry) -> Engine:
        """The engine for a geometry, owned by this object: the one there is, or a new one in its place."""
        engine = self._present()
        if engine is None or engine.geometry != geometry:
            self._finish_engine()
            with self._naming():
                plan = self.plan or resolve_plan(self.options, geometry)
                engine = self._engine = open_engine(plan, geometry)
        return engine

    def _naming(self) -> AbstractContextManager[None]:
        """Errors from inside name options as the face does that this upscaler stands behind."""
        return nullcontext() if self._for_job else named_as_in_python()

    def _present(self) -> Engine | None:
        """The engine there is; none in a process forked off while there was one, nor the frames that it had."""
        if self._engine is not None and left_behind(self._engine):
            for batch in self._batches:
                if batch.engine is self._engine:
                    batch.lose()
            self._engine = None
        return self._engine

    def _finish_engine(self) -> None:
        """Close the engine, after what other iterations have given it: memory is there for one engine at a time."""
        wait([batch.send() for batch in self._batches if batch.engine is self._engine])
        self.close()

    def stats(self) -> EngineStats:
        """What the present engine counted."""
        engine = self._present()
        return engine.stats() if engine is not None else EngineStats()

    def upscale_frames(self, frames: Iterable[FrameT]) -> Generator[FrameT, None, None]:
        """Upscaled frames of the same kind, lazily and in order; see `upscale_frames` in the package for what is taken.

        Takes at most a few batches ahead of what it gives. An error of the source, or of a frame that does not fit, comes after the
        results of the frames before it. Closing the generator early leaves nothing running but the idle engine.
        """
        pending: deque[tuple[Adapter, _Ticket]] = deque()
        previous: tuple[Planes, _Ticket] | None = None
        arrivals = self._arrivals(frames)
        while (came := (yield from self._next(arrivals, pending))) is not None:
            if previous is not None and previous[1].batch.engine.geometry != came.geometry:
                yield from self._finish(pending)  # the old engine closes before another opens
                previous = None
            ticket = self._ticket(came, previous)
            previous = (came.planes, ticket)
            pending.append((came.adapter, ticket))
            while len(pending) > _BATCHES_IN_FLIGHT * ticket.batch.engine.batch_size:
                yield self._wrapped(*pending.popleft())
        yield from self._finish(pending)

    def _arrivals(self, frames: Iterable[FrameT]) -> Iterator[_Arrival]:
        warns = not self._for_job
        for number, frame in enumerate(frames):
            if warns and is_interlaced(frame):
                warns = False
                warnings.warn(_INTERLACED, UserWarning, skip_file_prefixes=(_PACKAGE,))
            adapter = adapter_of(frame)
            source, color = adapter.describe(frame)
            geometry = Geometry(source=source, color=color, scale=self.options.scale, layout=self.layout)
            planes = adapter.planes(frame)
            # The engine would end over these, and take the other frames of its batch along.
            if source.floating and not all(np.isfinite(plane).all() for plane in planes):
                raise ValueError(f"frame {number} holds values that are infinite or no numbers")
            yield _Arrival(adapter, geometry, planes, adapter.note(frame))

    def _next(self, arrivals: Iterator[_Arrival], pending: deque[tuple[Adapter, _Ticket]]) -> Generator[Any, None, _Arrival | None]:
        """The next frame, None after the last. Results of the frames before an error come out before it; a stop waits for none."""
        try:
            return next(arrivals, None)
        except Exception:
            yield from self._finish(pending)
            raise

    def _finish(self, pending: deque[tuple[Adapter, _Ticket]]) -> Iterator[Any]:
        while pending:
            yield self._wrapped(*pending.popleft())

    def _wrapped(self, adapter: Adapter, ticket: _Ticket) -> Any:
        present = ticket.batch.engine is self._present()
        if not present and ticket.batch.future is None:
            raise DeviceError(_CLOSED)
        try:
            with self._naming():
                row = ticket.result()
        except CancelledError:
            raise DeviceError(_CLOSED) from None
        except BaseException:
            if present:
                self.close()  # an engine keeps its first error; the next frames get a new one
            raise
        return adapter.wrap(row, ticket.target, ticket.note)

    def _ticket(self, came: _Arrival, previous: tuple[Planes, _Ticket] | None) -> _Ticket:
        if previous is not None and _equal(came.planes, previous[0]):
            self.repeated += 1
            return replace(previous[1], note=came.note)
        engine = self.engine(came.geometry)
        batch = previous[1].batch if previous is not None else _Batch(engine)
        if not batch.takes(engine):
            batch = _Batch(engine)
        self._batches.add(batch)
        batch.frames.append(came.planes)
        ticket = _Ticket(came.note, batch, len(batch.frames) - 1, came.geometry.target)
        if batch.full:
            batch.send()
        return ticket

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Upscale a batch: (N, 3, H, W), uint8 or float in 0..1 -> (N, 3, scale*H, scale*W) of the same dtype on the same device.

        Float results are held within 0..1 too.
        """
        import torch

        if not isinstance(batch, torch.Tensor):
            raise TypeError(f"a {type(batch).__name__} came; taken is a tensor, and `upscale_frames` takes arrays and video frames")
        if batch.ndim != 4:
            raise ValueError(f"a tensor of shape {tuple(batch.shape)} came; taken is (batch, 3, height, width)")
        if not len(batch):
            return self._empty(batch)
        with closing(self.upscale_frames(batch)) as results:
            return torch.stack(list(results))

    @named_as_in_python()
    def _empty(self, batch: torch.Tensor) -> torch.Tensor:
        """What comes of no frame, in its shape; no engine is made for it."""
        check_numbers(self.options)
        frame = batch.new_empty(batch.shape[1:])
        source, color = adapter_of(frame).describe(frame)
        target = Geometry(source=source, color=color, scale=self.options.scale, layout=self.layout).target
        return batch.new_empty((0, 3, target.height, target.width))


def upscale_frames(
    frames: Iterable[FrameT],
    *,
    scale: int = 2,
    model: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: Dtype = "auto",
    batch_size: int | None = None,
) -> Generator[FrameT, None, None]:
    """Upscale frames lazily: one out for one in, in order, each of the kind it came in.

    Taken are HWC arrays of RGB (uint8, or uint16 with all 16 bits used), CHW tensors of RGB (uint8, or float in 0..1, where the results
    stay too) and av.VideoFrame (planar formats of 8 to 16 bit integers, little-endian where wider than a byte; packed RGB such as rgb24
    and bgra; nv12 and p010). A video frame's pts, duration, time_base and colour tags stay; what YUV and gray leave open of them is settled
    by the source's size, so give a frame those that only its container names. Deinterlace first what is interlaced: the two fields of a
    frame are upscaled as one picture, of which a UserWarning tells once.

    The source may be endless; a few batches are in flight. Sizes may change on the way. Closing the generator ends the engine's thread.
    ValueError or TypeError for what does not fit; these and the source's own errors come after the results of the frames before.
    """
    with Upscaler(model, scale=scale, weights=weights, device=device, dtype=dtype, batch_size=batch_size) as upscaler:
        yield from upscaler.upscale_frames(frames)


def _equal(planes: Planes, others: Planes) -> bool:
    return len(planes) == len(others) and all(np.array_equal(a, b) for a, b in zip(planes, others, strict=True))
