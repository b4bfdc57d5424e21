"""What a container refuses of the streams that are to be copied: found by trying, before hours of work end in it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer
from av.packet import Packet

from a2n_video.frames import fraction
from a2n_video.io.mux.copying import FRAMED, Copying, as_held, copied_stream, readable
from a2n_video.io.source import open_source
from a2n_video.io.whole import complaints
from a2n_video.io.writer import FORMAT_NAMES
from a2n_video.media.containers import HOLDS
from a2n_video.media.index import TimeMap
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.streams import Container, StreamPlan
from a2n_video.media.timemap import told

_PACKETS_TO_TRY: Final = 20
_PACKETS_TO_READ: Final = 500  # of all streams together: a sparse one may have its next packet hours away
_US: Final = Fraction(1, 1_000_000)


def unwritable_streams(path: Path, info: VideoInfo, plan: StreamPlan, time_map: TimeMap) -> dict[int, str]:
    """Copied audio and video streams that the container refuses, with the reason.

    Each is tried alone and with its first packets in the part that is taken: muxers look at its header, some at what comes then.
    """
    fates = ((stream, plan.of_stream(stream.index)) for stream in info.streams if stream.kind in ("audio", "video") and not stream.is_cover)
    copied = [stream for stream, fate in fates if fate is not None and fate.fate == "copied"]
    if not copied:
        return {}
    with open_source(path, ignore_edits=info.ignore_edits) as source:
        copying = Copying(info, plan.container, time_map, source)
        trials = {stream.index: _Trial(stream, path, plan.container) for stream in copied}
        for index, trial in trials.items():
            if (target := trial.begun(source)) is not None:
                copying.targets[index] = target
        packets = copying.packets(_first_packets(source, info, time_map, trials))
        for index, packet in as_held(packets, plan.container):
            trials[index].write(packet)
    reasons = {index: trial.ended() for index, trial in trials.items()}
    return {index: reason for index, reason in reasons.items() if reason}


def _first_packets(source: InputContainer, info: VideoInfo, time_map: TimeMap, trials: Mapping[int, _Trial]) -> Iterator[Packet[Any]]:
    """Packets from a cut on, few in all; where a reader cannot start there, what lies before is read and not counted."""
    if time_map.begin is not None and time_map.seekable:
        with contextlib.suppress(av.FFmpegError):
            source.seek(round((time_map.begin - time_map.seconds_of(Fraction(0))) / _US))
    read = 0
    for packet in readable(source, list(source.streams)):
        yield packet
        read += _lies_after(packet, info.streams, time_map)
        if read >= _PACKETS_TO_READ or all(trial.enough for trial in trials.values()):
            return


def _lies_after(packet: Packet[Any], streams: Sequence[StreamInfo], time_map: TimeMap) -> bool:
    time = told(packet.pts) if packet.dts is None else told(packet.dts)
    if time_map.begin is None or time is None or packet.stream_index >= len(streams):
        return True
    return time_map.seconds_of(time * streams[packet.stream_index].time_base, packet.pos) >= time_map.begin


class _Trial:
    """One stream alone in a file of its own, in memory."""

    def __init__(self, stream: StreamInfo, path: Path, container: Container) -> None:
        self._stream = stream
        self._path = path
        self._container = container
        self._file = io.BytesIO()
        self._output = av.open(self._file, "w", format=FORMAT_NAMES.get(container, container))
        self._times: list[Fraction] = []
        self._reason = ""

    @property
    def enough(self) -> bool:
        """Whether there is nothing more to be learned."""
        return bool(self._reason) or len(self._times) >= _PACKETS_TO_TRY

    def begun(self, source: InputContainer) -> Any:
        """The stream its packets are for, with its header written; None where that is refused."""
        return self._unless_refused(self._begin, source)

    def write(self, packet: Packet[Any]) -> None:
        """Try a packet; a damaged one is passed over, as when copying."""
        if not self.enough:
            self._unless_refused(self._mux, packet)

    def ended(self) -> str:
        """Why the container does not take the stream, empty where it does or nothing of it was met: some have no end without packets."""
        if not self._times:
            with contextlib.suppress(av.FFmpegError, ValueError):
                self._output.close()
            return self._reason
        self._unless_refused(self._output.close)
        if HOLDS[self._container].steady and self._stream.codec in FRAMED:
            same = self._unless_refused(_same_times, self._times, self._file)
            self._reason = self._reason or ("" if same else f"{self._container} gives its packets other times")
        return self._reason

    def _begin(self, source: InputContainer) -> Any:
        target = copied_stream(self._stream, self._path, source, self._output, self._container)
        self._output.start_encoding()
        return target

    def _mux(self, packet: Packet[Any]) -> None:
        time = (packet.pts or 0) * (fraction(packet.time_base) or Fraction(0))
        with contextlib.suppress(av.error.InvalidDataError, av.error.PatchWelcomeError):
            self._output.mux(packet)
            self._times.append(time)

    def _unless_refused[**P, T](self, step: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """What a step gives; where the muxer refuses, None, and its own words are the reason."""
        refusal: Exception | None = None
        with complaints(self._output) as said:
            try:
                return step(*arguments, **named)
            except (av.FFmpegError, ValueError) as error:
                refusal = error
        if not self._reason:
            self._reason = f"{self._container} refuses it: {_words(refusal, said)}"
        return None


def _words(error: Exception, said: Collection[str]) -> str:
    """What a muxer says of what it refuses, else how FFmpeg calls the error."""
    return next(iter(said), None) or getattr(error, "strerror", None) or str(error)


def _same_times(times: Sequence[Fraction], file: io.BytesIO) -> bool:
    """Whether packets come back when they were written, to a tick: in AVI, large ones of MP3 (layer 2 from an MP4) count twice."""
    file.seek(0)
    with av.open(file, "r") as made:
        base = fraction(made.streams[0].time_base) or Fraction(0)
        found = [(packet.pts or 0) * base for packet in made.demux() if packet.size]
    return all(abs(a - b) <= base for a, b in zip(times, found, strict=False))
