"""Tags and languages: what a container is given is what it gives back, by the muxers themselves, and the rest is named as lost."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.media.containers import ISO_639_1, Container
from a2n_video.media.tags import (
    kept_tags,
    lost_tags,
    needs_named_keys,
    same_language,
    same_place,
    same_time,
    tag_key,
    tag_of,
    utc,
    written_language,
)
from tests.clips import MUXERS
from tests.made import picture

CONTAINERS: tuple[Container, ...] = ("mkv", "webm", "mp4", "mov", "nut", "avi")
VALUES = {
    "track": ["3", "03", "3/12", "03/012", "A1", "3 of 12", "0", "70000"],
    "disc": ["1/2", "Disc 1"],
    "location": [
        *("+48.8566+002.3522/", "Paris", "48.85, 2.35", "48.8577 2.295", "48.8577-2.295", "10 5th Avenue", "12 rue X", "123", "1 e5"),
        *("48.8577-2.295/Paris", "N48 E2", ".5 .5", "1e1 2", "12.5.3", "nan nan", "+48.8577 +2.295", "12/5", "4 - 5", "+1.5-2/"),
        *("+48.85-2+35/Paris", "+4851.5+00217.5/", "+485130.5+0021730.5/"),
    ],
    "location-eng": ["+48.8566+002.3522/"],
    "creation_time": [
        *("2021-03-04T05:06:07.000000Z", "2021-03-04 05:06:07", "20210304T050607Z", "2021-03-04T07:06:07.345+02:00"),
        *("2020", "2020-01-01", "soon", "1950-01-01T00:00:00Z", "2050-01-01T00:00:00Z"),
    ],
    "MusicBrainz Album Id": ["abc"],
    "comment-deu": ["x"],
    "title-zh": ["x"],
    "notes-en-US": ["x"],
    "stereo_mode": ["mono"],
    "timecode": ["bad"],
    "title": ["two\nlines", " blanks "],
    "author": ["a"],
    "CreationTime": ["2021"],
    "LEAD_PERFORMER": ["a"],
    "part_number": ["3"],
    "com.maker.lens": ["35 mm"],
}


def given_back(container: Container, tags: dict[str, str]) -> dict[str, str]:
    """The tags of a file that was given these, as the plan says it must be written."""
    file, options = io.BytesIO(), {"movflags": "+use_metadata_tags"} if needs_named_keys(tags, container) else {}
    with av.open(file, "w", format=MUXERS.get(container, container), options=options) as output:
        output.metadata.update(kept_tags(tags, container, of_stream=False))
        stream: Any = output.add_stream("libvpx" if container == "webm" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = picture(0)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(io.BytesIO(file.getvalue())) as made:
        return dict(made.metadata)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_what_is_kept_comes_back_and_the_rest_is_named(name: str, value: str, container: Container) -> None:
    tags = {name: value}
    kept = kept_tags(tags, container, of_stream=False)
    assert lost_tags(tags, container, of_stream=False) == ([] if kept else [name])
    for read, written in kept.items():
        found = tag_of(given_back(container, tags), read)
        assert found is not None
        if name == "creation_time":
            assert same_time(found, written) and same_time(written, utc(value) or value)
        else:
            assert found == written or (name == "location" and same_place(found, written))


COORDINATES, ELSEWHERE = "+48.8566+002.3522/", "+10.0000+020.0000/"
# Names that are one in some container, and near ones that are none.
PAIRS = [
    {"album artist": "A", "album_artist": "B"},
    {"comment-de": "x", "comment-deu": "y"},
    {"comment-de": "x", "comment": "y"},
    {"title-und": "A", "title": "B"},
    {"x y": "1", "x_y": "1"},
    {"location": "Paris", "location-eng": "Rome"},
    {"location": "Paris", "location-eng": "Paris"},
    {"location": COORDINATES, "location-eng": ELSEWHERE},
    {"location": COORDINATES, "location-eng": ELSEWHERE, "x": "1"},
    {"location": "Paris", "location-eng": ELSEWHERE, "x": "1"},
    {"location": "10 5th Avenue", "location-eng": "10 5th Avenue"},
    {"location": "10 5th Avenue", "location-eng": ELSEWHERE},
    {"location": "48.8577 2.295", "location-eng": ELSEWHERE},
    {"lead_performer": "a", "performer": "b"},
    {"part_number": "3", "track": "4"},
    {"Author": "a", "artist": "b"},
    {"name": "a", "title": "b", "TITLE-UND": "c"},
]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("tags", [*PAIRS, *(dict(reversed(pair.items())) for pair in PAIRS)], ids=str)
def test_of_two_tags_that_become_one_the_other_is_named(tags: dict[str, str], container: Container) -> None:
    kept, lost = kept_tags(tags, container, of_stream=False), lost_tags(tags, container, of_stream=False)
    found = given_back(container, tags)
    for name, value in kept.items():
        given = tag_of(found, name) or ""
        assert given == value or (name == "location" and same_place(given, value))
    values = [value for name, value in tags.items() if name not in lost]
    assert set(values) == set(kept.values()) and set(kept) <= set(tags) | {"artist", "performer", "track"}


@pytest.mark.parametrize(
    ("tags", "container", "lost"),
    [
        ({"album artist": "A", "album_artist": "B"}, "mkv", ["album artist"]),
        ({"title-und": "A", "title": "B"}, "mkv", ["title-und"]),
        ({"comment-de": "x", "comment-fr": "y"}, "mkv", []),
        ({"location": "Paris", "location-eng": "Rome"}, "mov", []),
        ({"location-eng": ELSEWHERE, "location": COORDINATES}, "mp4", ["location-eng"]),
        ({"album artist": "A", "album_artist": "B"}, "mp4", []),
    ],
)
def test_of_two_tags_no_more_than_one_is_lost(tags: dict[str, str], container: Container, lost: list[str]) -> None:
    assert lost_tags(tags, container, of_stream=False) == lost


def test_a_tag_is_taken_by_its_very_name_first() -> None:
    assert tag_of({"title-und": "A", "TITLE": "B", "title": "C"}, "title") == "C"
    assert tag_of({"title-und": "A", "TITLE": "B"}, "title") == "B" and tag_of({"title-und": "A"}, "title") == "A"


def test_a_location_is_lost_only_where_the_muxer_makes_a_place_of_it() -> None:
    lost = [value for value in VALUES["location"] if lost_tags({"location": value}, "mp4", of_stream=False)]
    assert lost == ["48.8577-2.295", "10 5th Avenue", "48.8577-2.295/Paris", ".5 .5", "1e1 2", "12.5.3", "nan nan", "+485130.5+0021730.5/"]
    assert not [value for value in VALUES["location"] if lost_tags({"location": value}, "mov", of_stream=False)]


def test_one_place_in_two_forms() -> None:
    assert same_place("48.8577 2.295", "+48.8577+002.2950/") and same_place("+1.5-2/", "+01.5000-002.0000/")
    assert not same_place("+48.8577+002.2950/", "+48.9577+002.2950/") and not same_place("Paris", "+48.8577+002.2950/")


@pytest.mark.parametrize(("name", "value"), [("track", "A1"), ("disc", "Disc 1"), ("location", "Paris"), ("creation_time", "2020")])
def test_what_no_atom_can_say_is_written_as_a_named_key(name: str, value: str) -> None:
    assert needs_named_keys({name: value}, "mp4") and not lost_tags({name: value}, "mp4", of_stream=False)
    assert kept_tags({name: value, "title": "T"}, "mp4", of_stream=False)[name] == value


def test_common_tags_stay_in_the_atoms_that_players_read() -> None:
    tags = {
        "title": "T",
        "track": "03",
        "location": "+48.8566+002.3522/",
        "location-eng": "+48.8566+002.3522/",
        "encoding_tool": "x",
        "x": "",
    }
    assert not needs_named_keys(tags, "mp4")
    assert kept_tags(tags, "mp4", of_stream=False)["track"] == "3"
    assert not any(name in kept_tags(tags, "mkv", of_stream=False) for name in ("encoding_tool", "x"))


def test_a_tag_that_would_be_read_as_another_gives_way_to_that() -> None:
    assert kept_tags({"author": "a"}, "nut", of_stream=False) == {"artist": "a"}
    both = {"Author": "a", "artist": "b"}
    assert kept_tags(both, "nut", of_stream=False) == {"artist": "b"} and lost_tags(both, "nut", of_stream=False) == ["Author"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2021-03-04T07:06:07.345+02:00", "2021-03-04T05:06:07.345000Z"),
        ("2021-03-04 05:06:07", "2021-03-04T05:06:07.000000Z"),
        ("0001-01-01T00:00:00+23:00", None),
        ("2021-13-04T05:06:07Z", None),
        ("2021-03-04", None),
        ("", None),
    ],
)
def test_times_are_read_as_ffmpeg_reads_them(value: str, expected: str | None) -> None:
    assert utc(value) == expected


def test_names_are_one_whatever_their_container_makes_of_them() -> None:
    assert tag_key("MusicBrainz Album Id") == tag_key("MUSICBRAINZ_ALBUM_ID")
    assert tag_key("comment-deu") == tag_key("COMMENT-ger") == tag_key("comment-de") != tag_key("comment-fra")
    assert tag_key("title-und") == tag_key("TITLE") and tag_key("a-b") == "a-b"


LANGUAGES = {
    "de": {"mp4": "deu", "mov": "ger", "ts": "deu"},
    "en-US": {"mp4": "eng", "mov": "eng", "ts": "eng"},
    "pt_BR": {"mp4": "por", "mov": "por", "ts": "por"},
    "ENG": {"mp4": "eng", "mov": "eng", "ts": "eng"},
    "tlh": {"mp4": "tlh", "mov": None, "ts": "tlh"},
    "eng,fra": {"mp4": None, "mov": None, "ts": "eng,fra"},
    "English": {"mp4": None, "mov": None, "ts": None},
    "e1g": {"mp4": None, "mov": None, "ts": None},
    "xx": {"mp4": None, "mov": None, "ts": None},
}


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_languages_are_written_in_three_letters_or_named(language: str) -> None:
    for container, code in LANGUAGES[language].items():
        assert written_language(language, container) == code  # type: ignore[arg-type]
        lost = lost_tags({"language": language}, container, of_stream=True)  # type: ignore[arg-type]
        assert lost == ([] if code else [f"language {language}"])
    assert written_language(language, "mkv") == language


def test_the_table_of_languages_is_whole() -> None:
    assert len(ISO_639_1) == 184 + 3 and all(len(a) == 2 and len(b) == 3 for a, b in ISO_639_1.items())
    assert same_language(ISO_639_1["mi"], "mao") and same_language(ISO_639_1["de"], "ger") and ISO_639_1["iw"] == ISO_639_1["he"]
    installed = Path("/usr/share/iso-codes/json/iso_639-2.json")
    if installed.exists():
        table = {entry["alpha_2"]: entry["alpha_3"] for entry in json.loads(installed.read_text())["639-2"] if "alpha_2" in entry}
        assert {code: ISO_639_1[code] for code in table} == table
