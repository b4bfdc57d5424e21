"""Results are refused before the work where they cannot be written, and written whole."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from a2n_video.errors import OptionError, OutputError, OutputExistsError
from a2n_video.tools.results import check_output, described, write_file, write_rows


def test_what_can_be_written_passes(tmp_path: Path) -> None:
    (tmp_path / "old.PNG").write_bytes(b"old")
    check_output(tmp_path / "new.png", (".png",), [tmp_path / "in.mp4"])
    check_output(tmp_path / "old.PNG", (".png",), [tmp_path / "in.mp4"])


def test_what_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(b"mine")
    with pytest.raises(OptionError, match=r"a \.png or \.jpg file"):
        check_output(tmp_path / "out.gif", (".png", ".jpg"))
    with pytest.raises(OutputError, match="there is no folder"):
        check_output(tmp_path / "none" / "out.png", (".png",))
    with pytest.raises(OutputError, match="is an input as well"):
        check_output(tmp_path / "." / "in.png", (".png",), [source])
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_output(source, (".png",), overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path, b"x")


def test_a_result_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path, link = tmp_path / "out.png", tmp_path / "link.png"
    path.write_bytes(b"good")
    link.symlink_to(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"out\.png: cannot be written: File too large"):
            write_file(path, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"good" and set(tmp_path.iterdir()) == {path, link}
    write_file(link, b"better")
    assert path.read_bytes() == b"better" and link.is_symlink()


def test_rows_have_names_and_empty_places(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", {"a": "one", "b_db": "two, dB"}, [(1, None), ("x", 1 / 3)])
    assert (tmp_path / "t.csv").read_text() == "a,b_db\n1,\nx,0.333333\n"
    assert described({"a": "one", "b_db": "two, dB"}) == "a: one; b_db: two, dB"
