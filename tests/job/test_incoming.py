"""Sources that are read once: what is known of them before their first frame."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import pytest

from a2n_video.errors import InputError
from a2n_video.job.incoming import Stream, stream_of, y4m_stream
from a2n_video.job.run import upscale_video
from a2n_video.options import JobOptions
from tests.made import make_source
from tests.pipes import y4m

PART = JobOptions().with_changes(start=Fraction(1, 5), frames=3, fps=Fraction(10))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("incoming") / "in.mkv", pts=range(10), audio=())


@pytest.fixture(scope="module")
def pictures(file: Path) -> Path:
    upscale_video(file, file.with_name("p7_%03d.png"), model="nearest")
    file.with_name("p7_001.png").unlink()
    return file.with_name("p7_%03d.png")


def pts(stream: Stream) -> list[int | None]:
    return [frame.pts for frame in stream.frames]


def test_a_file(file: Path) -> None:
    stream = stream_of(file, PART)
    assert (stream.rate, stream.count, stream.first, stream.files, stream.cut_short) == (Fraction(25), 3, 1, (file,), None)
    assert len(pts(stream)) == 3 and not stream.damage.errors


def test_pictures(pictures: Path) -> None:
    stream = stream_of(pictures, PART)
    assert (stream.rate, stream.count, stream.first) == (Fraction(10), 3, 4)
    assert [path.name for path in stream.files] == [f"p7_{number:03d}.png" for number in range(2, 11)]  # those left out belong to it too
    assert (stream.info.path, stream.info.frame_rate) == (pictures, Fraction(10))
    assert pts(stream) == [0, 1, 2]


def test_one_picture(pictures: Path) -> None:
    path = pictures.with_name("p7_005.png")
    stream = stream_of(path, JobOptions())
    assert (stream.rate, stream.count, stream.first, stream.files) == (Fraction(25), 1, 1, (path,))


def test_no_picture(file: Path) -> None:
    with pytest.raises(InputError, match="no such pictures"):
        stream_of(file.with_name("q_%d.png"), JobOptions())
    with pytest.raises(InputError, match="no such file"):
        stream_of(file.with_name("q.png"), JobOptions())


def test_a_pipe() -> None:
    pipe = io.BufferedReader(io.BytesIO(y4m("yuv420p", 9, rate=Fraction(10))))  # type: ignore[arg-type]
    stream = y4m_stream(Path("-"), pipe, PART)
    assert (stream.rate, stream.count, stream.first, stream.files) == (Fraction(10), None, 1, ())
    assert pts(stream) == [0, 1, 2]
