"""Text subtitles on their way to another codec: words, times, overlaps, cuts."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.io.mux.subtitles import ConvertedSubtitles, Cue, cut_cues, one_at_a_time, read_cues
from a2n_video.job.run import upscale_video
from tests.made import make_source
from tests.survival import CUES, clip, text_subtitles

MS = Fraction(1, 1000)
STAYING: Any = SimpleNamespace(seconds_of=lambda time, position: time)


def cue(start: int, end: int, text: str) -> Cue:
    return Cue(start=start * MS, end=end * MS, line=f"0,0,Default,,0,0,0,,{text}")


def spans(cues: Any) -> list[tuple[int, int, str]]:
    return [(int(c.start / MS), int(c.end / MS), c.text) for c in cues]


@pytest.mark.parametrize("target", ["mov_text", "webvtt", "srt", "ass"])
@pytest.mark.parametrize("codec", ["srt", "ass", "webvtt"])
def test_words_and_times_come_through(codec: str, target: str, tmp_path: Path) -> None:
    path, file = tmp_path / "source.mkv", io.BytesIO()
    clip(path, add=text_subtitles(codec))
    converted = ConvertedSubtitles(path, 1, target, STAYING)
    muxer = {"mov_text": "mp4", "webvtt": "webm"}.get(target, "matroska")
    with av.open(file, "w", format=muxer) as output:
        converted.add_to(output)
        for packet in converted.packets():
            output.mux(packet)
    result = tmp_path / f"result.{muxer}"
    result.write_bytes(file.getvalue())
    found = read_cues(result, 0).cues
    assert [(c.start, c.end) for c in found] == [(start * MS, end * MS) for start, end, _ in CUES]
    assert [c.words for c in found] == ["Hello you", "Two\nlines"]


def test_overlaps_become_cues_of_their_own() -> None:
    cues = [cue(0, 300, "a"), cue(200, 500, "b"), cue(600, 700, "c")]
    assert spans(one_at_a_time(cues)) == [(0, 200, "a"), (200, 300, "a\\Nb"), (300, 500, "b"), (600, 700, "c")]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_at_every_moment_the_same_words_show(spans_: list[tuple[int, int]]) -> None:
    cues = [cue(start, start + length, f"<{n}>") for n, (start, length) in enumerate(sorted(spans_))]
    single = one_at_a_time(cues)
    for moment in range(72):
        shown = [c.text for c in single if c.start <= moment * MS < c.end]
        assert len(shown) <= 1
        before = {c.text for c in cues if c.start <= moment * MS < c.end}
        assert set("".join(shown).replace("\\N", "").replace("><", ">|<").split("|")) - {""} == before


def test_a_cut_keeps_what_reaches_in_and_trims_it() -> None:
    cues = [cue(0, 100, "before"), cue(50, 250, "across"), cue(200, 300, "in"), cue(390, 900, "out"), cue(400, 500, "after")]
    kept = cut_cues(cues, 100 * MS, 400 * MS)
    assert spans(kept) == [(100, 250, "across"), (200, 300, "in"), (390, 400, "out")]
    assert cut_cues(cues, None, None) == tuple(cues)


def test_cues_that_a_cut_brings_to_one_beginning_are_in_order() -> None:
    """A sign that stands longer than the line spoken over it comes after that one, as it is read back."""
    kept = cut_cues([cue(100, 1500, "sign"), cue(300, 900, "line"), cue(600, 700, "next")], 500 * MS, None)
    assert spans(kept) == [(500, 900, "line"), (500, 1500, "sign"), (600, 700, "next")]


def test_override_tags_are_no_words() -> None:
    assert cue(0, 1, "{\\fs20}A{\\r} b\\Nc\\hd, e").words == "A b\nc d, e"


def test_a_cue_that_cannot_be_decoded_costs_none_but_itself(tmp_path: Path) -> None:
    """A table of sizes that leaves one of MP4's cues not even its length."""
    path, file = tmp_path / "source.mkv", io.BytesIO()
    clip(path, add=text_subtitles("srt"))
    converted = ConvertedSubtitles(path, 1, "mov_text", STAYING)
    with av.open(file, "w", format="mp4") as output:
        converted.add_to(output)
        for packet in converted.packets():
            output.mux(packet)
    data, broken = bytearray(file.getvalue()), tmp_path / "broken.mp4"
    sizes = data.index(b"stsz") + 16
    count = int.from_bytes(data[sizes - 4 : sizes])
    words = max(place for place in range(sizes, sizes + 4 * count, 4) if int.from_bytes(data[place : place + 4]) > 2)
    data[words : words + 4] = (1).to_bytes(4)
    broken.write_bytes(data)
    whole, found = read_cues(path, 1), read_cues(broken, 0)
    assert found.undecoded == 1
    assert [c.words for c in found.cues] == [c.words for c in whole.cues][:-1]
    again = ConvertedSubtitles(broken, 0, "srt", STAYING)
    with av.open(io.BytesIO(), "w", format="matroska") as output:
        again.add_to(output)
        assert len(list(again.packets())) == len(found.cues)
    assert again.undecoded == 1


@pytest.mark.parametrize("suffix", ["webm", "mp4"])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("I <3 you", "I <3 you"),
        ("5 < 6 > 4", "5 < 6 > 4"),
        ("&amp; &lt;i&gt; & co", "&amp; &lt;i&gt; & co"),
        ("<i>it</i> and <b>b</b>", "it and b"),
        ("hard\\hspace", "hard space"),
        ("a --> b", "a --> b"),
    ],
)
def test_what_looks_like_markup_comes_through(text: str, shown: str, suffix: str, tmp_path: Path) -> None:
    """And does not fail the whole job at its verification."""
    source = make_source(tmp_path / "in.mkv", pts=range(12), audio=(), subtitles=[(MS * 40, MS * 400, text), (MS * 410, MS * 440, "\\n")])
    options = {"codec": "libvpx-vp9", "preset": "8"} if suffix == "webm" else {"preset": "ultrafast"}
    upscale_video(source, tmp_path / f"out.{suffix}", model="nearest", **options)
    assert [" ".join(c.words.split()) for c in read_cues(tmp_path / f"out.{suffix}", 1).cues if c.words] == [shown]
