"""What becomes of gaps in sound where a container counts samples or packets, so that all after one would come early. Pure values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from a2n_video.media.containers import HOLDS, Container
from a2n_video.media.epochs import LEAD_IN, StreamTimes
from a2n_video.media.index import TimeMap
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.samples import JITTER, LONGEST_GAP, Course, RawSound
from a2n_video.media.streams import StreamFate, StreamPlan

# Raw sound has no times in these (FFmpeg calls their muxers so too); in AVI no sound has.
_COUNTING: Final = frozenset({"mp4", "mov", "avi"})
_KEEPS: Final = "mkv and nut keep its times"


@dataclass(frozen=True, kw_only=True)
class Unevenness:
    """In seconds: by how much times are `off` the samples at most; the `silence` that fills their `gaps`, the `longest` of which is that
    long; and how `late` a sample comes at most where that is put in.
    """

    off: Fraction = Fraction(0)
    gaps: int = 0
    silence: Fraction = Fraction(0)
    longest: Fraction = Fraction(0)
    late: Fraction = Fraction(0)

    @classmethod
    def of(cls, course: Course, part: TimeMap) -> Unevenness:
        """What comes of a course in a part. A gap from before its beginning on is none in it: its sound begins with what comes then."""
        zero = last = Fraction(0)
        found = cls()
        for number, stamp in enumerate(course.stamps):
            time, sounded = part.seconds_of(stamp.time * course.time_base, stamp.position), Fraction(stamp.samples, course.rate)
            before, last = last + sounded - course.step, time - sounded  # when the packet before it begins; how late it is
            if not number or (part.begin is not None and (time <= part.begin or before < part.begin)):
                zero = last
            elif part.limit is None or time < part.limit:
                found = found.further(last - zero)
        return found

    def further(self, off: Fraction) -> Unevenness:
        """The same with one more place, from which on times are so much later than the samples."""
        gap = off - self.silence
        is_gap = gap > JITTER
        return Unevenness(
            off=max(self.off, abs(off)),
            gaps=self.gaps + is_gap,
            silence=self.silence + gap if is_gap else self.silence,
            longest=max(self.longest, gap),
            late=max(self.late, -gap),
        )


def counts_samples(codec: str, container: str) -> bool:
    """Whether sound that is made into a codec has no times in a container."""
    return container in _COUNTING and (codec.startswith("pcm_") or container == "avi")


def filled_sound(stream: StreamInfo, container: Container) -> RawSound | None:
    """The kind of sound of a stream whose gaps are filled with silence when it is copied; None where they are not."""
    return RawSound.of(stream.codec, stream.channels, stream.sample_rate) if container in _COUNTING else None


def with_gaps(info: VideoInfo, plan: StreamPlan, part: TimeMap, streams: Mapping[int, StreamTimes]) -> StreamPlan:
    """The plan with what the gaps of sound in a part become, and without sound that the container would play at other times."""
    if plan.container not in _COUNTING:
        return plan
    fates: list[StreamFate] = []
    for fate in plan.fates:
        times = streams.get(fate.index) if fate.index is not None and fate.kind == "audio" and fate.fate != "dropped" else None
        if times is None or times.course is None:
            fates.append(fate)
            continue
        found = Unevenness.of(times.course, part)
        fills = counts_samples(fate.to, plan.container) if fate.to else filled_sound(info.streams[times.index], plan.container)
        if fills:
            fates += _filled(fate, plan.container, found)
        elif HOLDS[plan.container].steady and found.off > times.course.step:
            reason = f"its times are up to {float(found.off):.3f} s off, and {plan.container} counts its packets; {_KEEPS}"
            fates.append(replace(fate, fate="dropped", reason=reason))
        else:
            fates.append(fate)
    return replace(plan, fates=tuple(fates))


def _filled(fate: StreamFate, container: Container, found: Unevenness) -> Iterator[StreamFate]:
    """The fate of sound whose samples are counted, and the delay that is left of what silence cannot mend."""
    counts = f"{container} counts its samples; {_KEEPS}"
    if found.longest > LONGEST_GAP:
        yield replace(fate, fate="dropped", reason=f"it has a gap of {float(found.longest):.0f} s, and {counts}")
        return
    if found.late > LEAD_IN:
        yield replace(
            fate, fate="dropped", reason=f"its samples last up to {float(found.late):.3f} s longer than its times say, and {counts}"
        )
        return
    if found.gaps:
        silence = f"{float(found.silence):.3f} s of silence fill {found.gaps} gap{'s' * (found.gaps > 1)}, for {counts}"
        fate = replace(fate, reason=f"{fate.reason}; {silence}" if fate.reason else silence)
    yield fate
    if found.late > 2 * JITTER:
        what = f"delay of {fate.what} (up to {1000 * float(found.late):+.1f} ms)"
        yield StreamFate(what=what, kind="delay", fate="dropped", reason=f"its samples last longer than its times say, and {counts}")
