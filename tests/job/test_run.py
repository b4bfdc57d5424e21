"""What a run does when the world changes under it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from a2n_video import upscale_video
from a2n_video.errors import InputError, JobConflictError, OptionError
from a2n_video.job.directory import JobDirectory
from a2n_video.job.journal import Journal
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
    with pytest.raises(InputError, match=r"in\.mkv: it was changed or replaced while this job ran; .*--restart"):
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


def test_options_that_are_none_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\{'crf': 3\} is no JobOptions; single options are given by name"):
        upscale_video(source, tmp_path / "out.mkv", {"crf": 3})  # type: ignore[arg-type]
    assert not list(tmp_path.glob("out*"))
