"""What a run does when the world changes under it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from a2n_video import load_model, upscale_video
from a2n_video.errors import EncodeError, InputError, JobConflictError, OptionError, OutputError, WeightsError
from a2n_video.io.writer import VideoWriter
from a2n_video.job.directory import JobDirectory, job_path
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.planning.plan import prepare
from a2n_video.job.run import run
from a2n_video.options import JobOptions
from tests.job.test_damage import zeroed
from tests.made import make_source


def upscale(source: Path, dest: Path, on_frame: Callable[[], object], **options: object) -> int:
    """Upscale in segments of eight frames; `on_frame` is called once, in the middle."""
    called: list[int] = []

    def progress(frames: int) -> None:
        if frames >= 20 and not called:
            called.append(frames)
            on_frame()

    return upscale_video(source, dest, model="nearest", segment_frames=8, on_progress=progress, **options).frames  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "in.mkv", pts=range(48))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make_source(tmp_path / "other.mkv", pts=range(60))


def test_a_source_that_was_replaced_meanwhile_gives_no_result(source: Path, other: Path, tmp_path: Path) -> None:
    """Its sound would be put beside the old one's picture."""
    dest = tmp_path / "out.mkv"
    with pytest.raises(InputError, match=r"in\.mkv: it was changed or replaced while this job ran; .*restart"):
        upscale(source, dest, lambda: other.replace(source))
    assert not dest.exists()
    with (tmp_path / "out.mkv.a2n" / "journal.jsonl").open() as journal:
        assert sum('"segment"' in line for line in journal) < 6  # told with the next segment, not at the end
    with pytest.raises(JobConflictError, match="changed"):
        upscale(source, dest, lambda: None)
    assert upscale(source, dest, lambda: None, restart=True) == 60


def test_an_old_result_stays_when_the_source_was_replaced(source: Path, other: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(b"an older result")
    with pytest.raises(InputError, match="changed or replaced"):
        upscale(source, dest, lambda: other.replace(source), overwrite=True, resume=False)
    assert dest.read_bytes() == b"an older result"
    assert not (tmp_path / "out.mkv.a2n").exists()


def test_a_source_that_was_only_touched_is_the_same(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mkv"
    shutil.copy(source, copy)
    assert upscale(source, tmp_path / "out.mkv", lambda: copy.replace(source)) == 48


def test_no_journal_is_open_when_the_folder_goes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS the folder would stay."""
    opened: list[Journal] = []
    closed: list[bool] = []
    real_open, real_remove = Journal.open, JobDirectory.remove

    def kept(path: Path) -> Journal:
        opened.append(real_open(path))
        return opened[-1]

    def looked(folder: JobDirectory) -> None:
        closed.append(opened[-1]._fd < 0)
        real_remove(folder)

    monkeypatch.setattr(Journal, "open", kept)
    monkeypatch.setattr(JobDirectory, "remove", looked)
    upscale(source, tmp_path / "out.mkv", lambda: None)
    assert closed == [True]


def test_a_run_that_was_stopped_while_it_tidied_up_is_told_of_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, dest = make_source(tmp_path / "in.mkv", pts=range(48), audio=("flac",)), tmp_path / "out.webm"
    changes = {"codec": "libvpx-vp9", "preset": "8", "reencode_audio": "opus"}

    def stopped(folder: JobDirectory) -> None:
        (folder.path / "000000.seg").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(JobDirectory, "remove", stopped)
        upscale(zeroed(source, "audio", slice(2, 4)), dest, lambda: None, **changes)
    assert dest.exists()
    result = upscale_video(source, dest, model="nearest", segment_frames=8, **changes)  # type: ignore[arg-type]
    assert (result.exit_code, result.damage.undecoded > 0) == (4, True)
    assert (result.frames, result.resumed_frames) == (48, 48)


class Listening:
    """Told of segments, each of which must be on the disk and in the journal by then, in the thread that runs the job."""

    def __init__(self, dest: Path, pause_s: float = 0.0) -> None:
        self.folder, self.pause_s = job_path(dest), pause_s
        self.told: list[int] = []
        self.thread = threading.current_thread()

    def __call__(self, record: SegmentRecord) -> None:
        assert threading.current_thread() is self.thread
        assert (self.folder / record.file).stat().st_size == record.size
        assert record.sha256 in (self.folder / "journal.jsonl").read_text()
        self.told.append(record.number)
        time.sleep(self.pause_s if len(self.told) == 2 else 0)


def run_telling(source: Path, listening: Listening, on_progress: Callable[[int], None] | None = None, **changes: Any) -> int:
    options = JobOptions().with_changes(**{"model": "nearest", "preset": "ultrafast", "segment_frames": 8, **changes})
    return run(prepare(source, source.with_name("out.mkv"), options), on_progress, on_segment=listening).frames


def test_segments_are_told_in_the_thread_that_waits(source: Path) -> None:
    listening = Listening(source.with_name("out.mkv"))
    assert run_telling(source, listening) == 48
    assert listening.told == [0, 1, 2, 3, 4, 5]


def test_whoever_hears_of_segments_may_pause(source: Path) -> None:
    """As where events go into a pipe: the encoder does not hang then."""
    listening = Listening(source.with_name("out.mkv"), pause_s=1.5)
    assert run_telling(source, listening, stall_timeout=0.5) == 48
    assert listening.told == [0, 1, 2, 3, 4, 5]


def test_the_last_segments_are_told_before_an_error_ends_the_job(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame that ends a segment is also the one that fails: nothing else tells of it."""
    listening, plain = Listening(source.with_name("out.mkv")), VideoWriter.write

    def write(writer: VideoWriter, frame: Any) -> None:
        if frame.pts >= 16 * 40:
            raise EncodeError("refused")
        plain(writer, frame)

    monkeypatch.setattr("a2n_video.job.planning.picture.rehearse", lambda *_: None)  # the work fails, not the trial before it
    monkeypatch.setattr(VideoWriter, "write", write)
    with pytest.raises(EncodeError, match="refused"):
        run_telling(source, listening)
    assert listening.told == [0, 1]


def test_the_last_segments_are_told_before_a_stop_ends_the_job(source: Path) -> None:
    listening = Listening(source.with_name("out.mkv"))

    def stop(frames: int) -> None:
        if frames == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_telling(source, listening, stop)
    assert listening.told == [0, 1]


def test_options_that_are_none_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\{'crf': 3\} is no JobOptions; single options are given by name"):
        upscale_video(source, tmp_path / "out.mkv", {"crf": 3})  # type: ignore[arg-type]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", ["a\0.mkv", "a\0_%d.png"])
def test_a_path_with_a_null_byte_is_told(source: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"a\\x00.*: cannot be written \(a path may not hold a null byte\)"):
        upscale_video(source, tmp_path / name, model="nearest")
    with pytest.raises(OptionError, match=r"^weights: 'a\\x00.pt' holds a null byte"):
        upscale_video(source, tmp_path / "out.mkv", weights="a\0.pt")
    with pytest.raises(WeightsError, match="null byte"):
        load_model(str(tmp_path / "a\0.pt"))
