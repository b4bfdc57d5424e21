"""A job's memory: an append-only file of JSON lines that outlives the process, whatever ends it.

The first line says which job this is, each further one names a finished segment, the last the verified result. Every line carries a
checksum of itself. Reading stops at the first line that is torn or changed, and what comes after counts as never written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from a2n_video.errors import JobConflictError
from a2n_video.io.faults import reach
from a2n_video.io.outfile import output_error, sync_directory

FORMAT: Final = 1
_SAMPLE_BYTES: Final = 1 << 20
_CHECK_DIGITS: Final = 16
# Of the encoder's settings: a resumed run takes its threads from the journal, and older journals know no muxer, which is that of pipes.
_NO_SEGMENTS: Final = {"threads": None, "muxer": None}
# Of a TimeMap: what times are counted from.
_CLOCK: Final = ("time_base", "shift_pts", "limit_pts", "first_dts", "pts_trusted")


@dataclass(frozen=True, kw_only=True)
class InputIdentity:
    """Which file a job reads, told by what a changed file cannot keep: size, time of change, sha256 of its first and last MiB."""

    size: int
    mtime_ns: int
    head: str
    tail: str

    @classmethod
    def of(cls, path: Path) -> InputIdentity:
        """Read from the file as it is now; OSError where it cannot be read."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            head = hashlib.sha256(file.read(_SAMPLE_BYTES)).hexdigest()
            file.seek(max(0, status.st_size - _SAMPLE_BYTES))
            tail = hashlib.sha256(file.read(_SAMPLE_BYTES)).hexdigest()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, head=head, tail=tail)

    def fits(self, path: Path) -> bool:
        """Whether a file has this size and time of change: nobody has written to it then."""
        with suppress(OSError):
            status = path.stat()
            return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)
        return False

    def same_content(self, other: InputIdentity) -> bool:
        """Whether all but the time of change is equal."""
        return (self.size, self.head, self.tail) == (other.size, other.head, other.tail)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """Everything that decides what a job's segments look like. Two runs with equal records make equal segments.

    `options` is JobOptions.as_json without the part `execution`, which only says how a run behaves; `plan` is ExecutionPlan.as_json,
    `encoder` the encoder's settings, `time_map` the settled time. What equal options lead to is compared too, as far as segments must
    agree on it: another build of this program may settle it otherwise. Execution and threads a resumed run takes from here.
    """

    input: InputIdentity
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    weights_sha256: str | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    time_map: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[int, ...] = ()  # settled pts at which segments after the first begin

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobRecord:
        return cls(**{**data, "input": InputIdentity(**data["input"]), "marks": tuple(data["marks"])})

    def differences(self, other: JobRecord) -> list[str]:
        """What `other` has otherwise, each in words a user knows: "crf: 18 here, 20 there" (here is `self`)."""
        mine, theirs = self.as_json(), other.as_json()
        found = [] if mine["input"] == theirs["input"] else ["the input file has changed"]
        found += _unequal(mine["options"], theirs["options"])
        found += [f"version of {what}" for what in _unequal(mine["versions"], theirs["versions"])]
        if self.weights_sha256 != other.weights_sha256:
            found.append("the model's weights have changed")
        return found or _settled_otherwise(mine, theirs)


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """A finished segment: its number, what it begins at, what it holds. A stretch in which no frame came has no file (`frames` 0)."""

    number: int
    start_pts: int | None  # settled pts of its mark, None for the first
    frames: int
    first_pts: int | None = None
    last_pts: int | None = None
    file: str = ""
    size: int = 0
    sha256: str = ""
    errors: int = 0  # decode errors whose frames lie in here
    repeated: int = 0  # frames that stand in for lost ones
    first_error: str | None = None  # the first error of its reader, where that lies in here
    header: str = ""  # sha256 of its decoder header; empty where that was not entered yet


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """The verified result, not yet under its name, and how many damaged packets of other streams were left out or moved for it."""

    size: int
    sha256: str
    refused: int = 0
    moved: int = 0
    undecoded: int = 0


@dataclass
class Journal:
    """One job's journal, read and open for appending. Used by one thread at a time; hold the job's lock while it is open.

    `job` is None for a journal that is new or whose first line is lost. A segment entered twice counts as last entered. `on_entered` is
    called in the thread that enters a segment, once that is durable; `on_segment` is told of it by `tell`, which another may call.
    """

    path: Path
    job: JobRecord | None = None
    segments: dict[int, SegmentRecord] = field(default_factory=dict)
    result: ResultRecord | None = None
    on_entered: Callable[[], None] | None = None
    on_segment: Callable[[SegmentRecord], None] | None = None
    _untold: deque[SegmentRecord] = field(default_factory=deque)
    _fd: int = -1

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what is whole, cut off what is not, and stand ready to append."""
        journal = cls(path)
        try:
            journal._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            good = journal._read()
            if good < os.fstat(journal._fd).st_size:
                os.ftruncate(journal._fd, good)
                os.fsync(journal._fd)
            sync_directory(path.parent)
        except OSError as error:
            journal.close()
            raise output_error(error, path, "the journal cannot be opened") from error
        return journal

    def _read(self) -> int:
        """Take in the whole lines; returns the length of that part."""
        good = 0
        for end, entry in whole_lines(self.path.read_bytes()):
            kind, values = entry["kind"], entry["values"]
            if (kind == "job") != (self.job is None):
                break
            match kind:
                case "job":
                    self.job = JobRecord.from_json(values)
                case "segment":
                    self.segments[values["number"]] = SegmentRecord(**values)
                case "result":
                    self.result = ResultRecord(**values)
            good = end
        return good

    def begin(self, job: JobRecord) -> None:
        """Enter which job this is; the journal must be empty."""
        self._append("job", job.as_json())
        self.job = job

    def add_segment(self, segment: SegmentRecord) -> None:
        """Enter a finished segment: durable when this returns."""
        self._append("segment", asdict(segment))
        self.segments[segment.number] = segment
        if self.on_entered is not None:
            self.on_entered()
        self._untold.append(segment)

    def tell(self) -> None:
        """Tell `on_segment` of every segment entered since the last time, each once: it may take long, as where a pipe's reader pauses."""
        while self._untold:
            segment = self._untold.popleft()
            if self.on_segment is not None:
                self.on_segment(segment)

    def add_result(self, result: ResultRecord) -> None:
        """Enter the verified result, before it gets its name."""
        self._append("result", asdict(result))
        self.result = result

    def _append(self, kind: str, values: Mapping[str, Any]) -> None:
        line = _line({"format": FORMAT, "kind": kind, "values": values})
        try:
            reach("journal.append.before")
            while line:
                line = line[os.write(self._fd, line) :]
            os.fsync(self._fd)
            reach("journal.append.after")
        except OSError as error:
            raise output_error(error, self.path, "the journal cannot be written") from error

    def check_same(self, job: JobRecord) -> None:
        """JobConflictError that names every difference, unless `job` is the journal's."""
        assert self.job is not None
        if differences := job.differences(self.job):
            told = "; ".join(differences)
            raise JobConflictError(
                f"{self.path.parent}: holds an unfinished job that differs from this one ({told}); give --restart to begin anew"
            )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def whole_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a journal up to the first torn or changed line, each with the offset after its line."""
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        entry = _entry(data[start:end])
        if entry is None:
            return
        yield end, entry
        start = end


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("format") != FORMAT or _line({k: v for k, v in entry.items() if k != "check"}) != line:
        return None
    return entry


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, sort_keys=True)
    check = hashlib.sha256(text.encode()).hexdigest()[:_CHECK_DIGITS]
    return json.dumps({**entry, "check": check}, sort_keys=True).encode() + b"\n"


def _unequal(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    found = []
    for key in sorted({*here, *there}):
        one, other = here.get(key), there.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _unequal(one, other)
        elif one != other:
            found.append(f"{key}: {_said(one)} now, {_said(other)} then")
    return found


def _settled_otherwise(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What another build of this program settled so for the same source and options that segments of both do not fit together."""
    found = [f"encoder's {what}" for what in _unequal(*({**record["encoder"], **_NO_SEGMENTS} for record in (mine, theirs)))]
    if _clock(mine["time_map"]) != _clock(theirs["time_map"]):
        found.append("the frames' times, which another build of a2n-video settled otherwise")
    return found


def _clock(time_map: Mapping[str, Any]) -> list[Any]:
    """By what frames get their times. Where they say none themselves, or others', they get those of the map, in order."""
    offsets = [offset for _, _, offset, _ in time_map.get("epochs", ())]
    own = time_map.get("pts_trusted") and not time_map.get("decode_times")
    return [*map(time_map.get, _CLOCK), offsets, None if own else time_map.get("times")]


def _said(value: Any) -> str:
    """A value as a user would have written it."""
    return "not given" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
