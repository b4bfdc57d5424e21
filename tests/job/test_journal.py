"""The journal: what was entered stands, what is torn or changed counts as never written, another job is told apart."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2n_video.errors import JobConflictError, OutputError, exit_code
from a2n_video.io.faults import listening
from a2n_video.job.directory import JobDirectory, job_path
from a2n_video.job.journal import InputIdentity, JobRecord, Journal, ResultRecord, SegmentRecord
from a2n_video.media.index import PacketTime, build_time_map
from a2n_video.options import JobOptions

IDENTITY = InputIdentity(size=10, mtime_ns=20, head="aa", tail="bb")


def options(**changes: object) -> dict[str, object]:
    return {part: values for part, values in JobOptions().with_changes(**changes).as_json().items() if part != "execution"}


TIME_MAP = build_time_map([PacketTime(n, n, 1, True, n) for n in range(30)], Fraction(1, 25), Fraction(25))
JOB = JobRecord(
    input=IDENTITY,
    options=options(scale=2),
    versions={"a2n_video": "1"},
    weights_sha256="w",
    marks=(10, 20),
    plan={"threads": 2},
    encoder={"codec": "libx264", "threads": 2, "options": {"crf": "16"}},
    time_map=TIME_MAP.as_json(),
)
SEGMENTS = [
    SegmentRecord(
        number=n, start_pts=10 * n or None, frames=10, first_pts=10 * n, last_pts=10 * n + 9, file=f"{n}.nut", size=99, sha256="ff"
    )
    for n in range(3)
]


def written(path: Path) -> bytes:
    with Journal.open(path) as journal:
        journal.begin(JOB)
        for segment in SEGMENTS:
            journal.add_segment(segment)
        journal.add_result(ResultRecord(size=5, sha256="ee"))
    return path.read_bytes()


def test_what_was_entered_is_read_again(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with Journal.open(tmp_path / "j") as journal:
        assert journal.job == JOB
        assert journal.segments == dict(enumerate(SEGMENTS))
        assert journal.result == ResultRecord(size=5, sha256="ee")


def test_a_segment_of_a_journal_that_knows_no_headers_is_read(tmp_path: Path) -> None:
    older = {name: value for name, value in vars(SEGMENTS[0]).items() if name != "header"}
    with Journal.open(tmp_path / "j") as journal:
        journal.begin(JOB)
        journal._append("segment", older)
    with Journal.open(tmp_path / "j") as journal:
        assert journal.segments == {0: SEGMENTS[0]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("journal") / "j")


def test_cut_at_every_byte(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # thousands of them take half a minute
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole)):
        path = tmp_path / "j"
        path.write_bytes(whole[:cut])
        with Journal.open(path) as journal:
            lines = sum(end <= cut for end in ends)
            assert (journal.job is not None) == (lines > 0)
            assert list(journal.segments.values()) == SEGMENTS[: max(0, lines - 1)]
            assert journal.result is None
            assert path.stat().st_size == max([0, *(end for end in ends if end <= cut)])
            if journal.job is None:
                journal.begin(JOB)
            else:
                journal.add_segment(SEGMENTS[2])  # and it can go on from there
        with Journal.open(path) as again:
            assert again.job == JOB


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_never_believed(tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("changed") / "j"
    path.write_bytes(changed)
    with Journal.open(path) as journal:
        assert journal.job in (None, JOB)
        assert all(segment == SEGMENTS[number] for number, segment in journal.segments.items())
        assert len(journal.segments) == min(3, max(0, whole[: place + 1].count(b"\n") - (whole[place] == 10) - 1))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"input": dataclasses.replace(IDENTITY, tail="cc")}, "input file has changed"),
        ({"options": options(scale=3)}, "scale: 3 now, 2 then"),
        ({"options": options(crf=9.0, scale=2)}, "crf: 9 now, not given then"),
        ({"versions": {"a2n_video": "2"}}, "version of a2n_video: 2 now, 1 then"),
        ({"weights_sha256": "x"}, "weights have changed"),
        ({"encoder": {"codec": "libx264", "options": {"crf": "17"}}}, "encoder's crf: 17 now, 16 then"),
        ({"time_map": dataclasses.replace(TIME_MAP, shift_pts=7).as_json()}, "frames' times, which another build"),
        ({"time_map": TIME_MAP.cut(frames=15).as_json()}, "frames' times, which another build"),
    ],
)
def test_another_job_is_refused_and_the_difference_named(tmp_path: Path, changed: dict[str, object], named: str) -> None:
    written(tmp_path / "j")
    with Journal.open(tmp_path / "j") as journal:
        journal.check_same(JOB)
        with pytest.raises(JobConflictError, match=named) as caught:
            journal.check_same(dataclasses.replace(JOB, **changed))  # type: ignore[arg-type]
    assert "--restart" in str(caught.value)
    assert exit_code(caught.value) == 5


def test_what_segments_need_not_agree_on_makes_no_other_job() -> None:
    """A build that counts frames better, knows of an end, or takes --start 0 for none goes on with what stands."""
    fewer = dataclasses.replace(TIME_MAP, times=TIME_MAP.times[3:], first_pts=3, end_pts=31, begin_pts=3)
    assert not JOB.differences(dataclasses.replace(JOB, encoder={**JOB.encoder, "threads": 5}, time_map=fewer.as_json()))


def test_how_a_run_behaves_makes_no_other_job() -> None:
    assert options(scale=2, overwrite=True, max_errors=3) == options(scale=2)


def test_identity_sees_every_kind_of_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, ns=(1, 1))
    before = InputIdentity.of(path)
    for place in (0, (3 << 20) - 1):
        data = bytearray(3 << 20)
        data[place] = 1
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
        assert InputIdentity.of(path) != before
    path.write_bytes(bytes(3 << 20))
    assert InputIdentity.of(path) != before  # the time
    os.utime(path, ns=(1, 1))
    assert InputIdentity.of(path) == before


def test_a_full_disk_at_an_append_is_told(tmp_path: Path) -> None:
    def strike(point: str) -> None:
        raise OSError(errno.ENOSPC, point)

    with Journal.open(tmp_path / "j") as journal:
        with listening(strike), pytest.raises(OutputError, match="disk is full"):
            journal.begin(JOB)
        assert journal.job is None


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    dest = tmp_path / "out.mkv"
    code = f"""
from pathlib import Path; import time
from a2n_video.job.directory import JobDirectory
with JobDirectory(Path({str(dest)!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(JobConflictError, match="another run"), JobDirectory(dest):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        with JobDirectory(dest):  # the lock died with its process
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]


def test_a_folder_that_was_finished_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = tmp_path / "out.mkv"
    first = JobDirectory(dest).__enter__()
    real = os.path.samestat
    calls: list[float] = []

    def finish_meanwhile(a: os.stat_result, b: os.stat_result) -> bool:
        calls.append(time.monotonic())
        if len(calls) == 1:
            first.remove()
            return False
        return real(a, b)

    first.__exit__(None, None, None)
    monkeypatch.setattr(os.path, "samestat", finish_meanwhile)
    with JobDirectory(dest) as second:
        assert second.path.is_dir()
    assert len(calls) > 1


@pytest.mark.parametrize("length", [100, 251, 252, 255])
def test_folder_names_fit(tmp_path: Path, length: int) -> None:
    names = {job_path(tmp_path / (letter * (length - 4) + ".mkv")) for letter in "ab"}
    assert len(names) == 2
    for name in names:
        name.mkdir()


def test_clear_and_remove(tmp_path: Path) -> None:
    with JobDirectory(tmp_path / "a.mkv") as folder:
        (folder.path / "x").write_bytes(b"")
        folder.clear()
        assert [p.name for p in folder.path.iterdir()] == ["lock"]
        folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_once_its_lock_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS an open file stays under another name, and the folder with it, until it is closed."""
    with JobDirectory(tmp_path / "a.mkv") as folder:
        monkeypatch.setattr(shutil, "rmtree", lambda path, **_: (path / "lock").unlink())
        folder.remove()
        assert folder.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, struck = os.open, []

    def gone(path: Path, *arguments: int) -> int:
        if not struck:
            struck.append(path)
            path.parent.rmdir()
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", gone)
    with JobDirectory(tmp_path / "a.mkv") as folder:
        assert struck and (folder.path / "lock").exists()
    (folder.path / "lock").unlink()
    (folder.path / "lock").symlink_to(tmp_path / "none" / "lock")
    with pytest.raises(OutputError, match="cannot be made"), folder:
        pass
