"""What a demuxer only logs is caught while somebody listens, and at no other time. (`cut_short`: tests/job/test_damage.py.)"""

from __future__ import annotations

import threading
from pathlib import Path

import av
import av.logging
import pytest

from a2n_video.io.whole import complaints
from tests.made import make_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("whole") / "clip.mkv", pts=range(5))


def test_the_level_is_as_before_when_two_threads_listened(clip: Path) -> None:
    """The first to begin is the first to end: each restoring what it found would leave the second one's level for ever."""
    second_listens, first_is_done = threading.Event(), threading.Event()

    def listen() -> None:
        with av.open(str(clip)) as container, complaints(container):
            second_listens.set()
            first_is_done.wait(10)

    other = threading.Thread(target=listen)
    with av.open(str(clip)) as container, complaints(container):
        assert av.logging.get_level() == av.logging.ERROR
        other.start()
        assert second_listens.wait(10)
    assert av.logging.get_level() == av.logging.ERROR  # somebody still listens
    first_is_done.set()
    other.join()
    assert av.logging.get_level() is None


def test_the_level_of_the_program_around_comes_back(clip: Path) -> None:
    av.logging.set_level(av.logging.FATAL)
    try:
        with av.open(str(clip)) as container, complaints(container):
            assert av.logging.get_level() == av.logging.ERROR
        assert av.logging.get_level() == av.logging.FATAL
    finally:
        av.logging.set_level(None)


def test_only_this_threads_demuxer_is_heard(clip: Path) -> None:
    with av.open(str(clip)) as container, complaints(container) as found:
        av.logging.log(av.logging.ERROR, container.format.name, " a place ")
        av.logging.log(av.logging.ERROR, "h264", "another's")
        other = threading.Thread(target=av.logging.log, args=(av.logging.ERROR, "libav.other", "elsewhere"))
        other.start()
        other.join()
    assert found == ["a place"]


def test_what_is_said_again_and_again_is_not_told_of_the_next_file(clip: Path) -> None:
    with av.open(str(clip)) as container, complaints(container) as found:
        for _ in range(3):
            av.logging.log(av.logging.ERROR, container.format.name, "a place")
    with av.open(str(clip)) as container, complaints(container) as after:
        av.logging.log(av.logging.ERROR, "h264", "another's")
    assert (found, after) == (3 * ["a place"], [])
    assert av.logging.get_skip_repeated()
