"""Tags as containers write them: which come through, in what form, which are lost, and whether two mean the same. Pure values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from a2n_video.media.containers import (
    HOLDS,
    ISO_639_1,
    MP4_ONLY_TAGS,
    MP4_TAGS,
    RENAMED_TAGS,
    SAME_LANGUAGE,
    TRANSPORT,
    Container,
    is_stale,
    mov_language,
)

# Tags that say nothing, or that the muxer makes for itself.
_EMPTY_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "language": frozenset({"und"}),
    "creation_time": frozenset({"1970-01-01T00:00:00.000000Z"}),
    "handler_name": frozenset({"VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler", "TimeCodeHandler"}),
}
_MP4: Final = frozenset({"mp4", "mov"})
_MATROSKA: Final = frozenset({"mkv", "webm"})
_LANGUAGE: Final = re.compile(r"([A-Za-z]{2,3})([-_].*)?")
_NUMBER: Final = re.compile(r"0*([1-9]\d{0,3})(?:/0*([1-9]\d{0,3}))?")
# What MP4's atoms of these names can say; QuickTime has text for a location, and none of the numbers.
_ATOMS: Final[Mapping[str, re.Pattern[str]]] = {
    "track": _NUMBER,
    "disc": _NUMBER,
    "location": re.compile(r"[+-]\d+(\.\d*)?\s*[+-]\d+(\.\d*)?.*|\d+\.\d+\s+[+-]?\d+\.\d+"),
    "timecode": re.compile(r"\d\d:\d\d:\d\d[:;.]\d\d"),
}
# What MP4's muxer takes for a place, even in a tag that is also written as text, as is any of QuickTime in named keys.
_DEGREES: Final = r"\s*+([+-]?+(?:\d++\.?+\d*+(?:e[+-]?\d++)?+|\.\d++(?:e[+-]?\d++)?+|inf(?:inity)?+|nan))"
_PLACE: Final = re.compile(_DEGREES + _DEGREES, re.IGNORECASE)
_MOST_DEGREES: Final = 1 << 15  # 16 bits with a sign, before 16 bits of fractions
_PLACES_APART: Final = 1e-4  # degrees: it writes four decimals
_TIME: Final = re.compile(r"\d{4}-?\d\d-?\d\d[T ]\d\d.*")
_MP4_YEARS: Final = range(1970, 2040)  # earlier and later ones come back as others: 32 bits of seconds since 1904, which some take for 1970


def tag_of(tags: Mapping[str, str], name: str) -> str | None:
    """A tag's value: of that very name, else in another case (Matroska writes capitals), else written in another way (`tag_key`)."""
    for same in (str, str.lower, tag_key):
        found = next((value for key, value in tags.items() if same(key) == same(name)), None)
        if found is not None:
            return found
    return None


def tag_key(name: str) -> str:
    """What two containers' names of one tag have in common. Matroska has no spaces and its own codes for a language at the end."""
    head, dash, tail = name.lower().replace(" ", "_").rpartition("-")
    if not (head and _LANGUAGE.fullmatch(tail)):
        return head + dash + tail
    return head if tail == "und" else f"{head}-{_terminological(ISO_639_1.get(tail, tail))}"


def lost_tags(tags: Mapping[str, str], container: Container, *, of_stream: bool, of_video: bool = False) -> list[str]:
    """Names of the tags that a container loses, a language with its value. What describes the old file is no loss."""
    return _sorted_out(tags, container, of_stream=of_stream, of_video=of_video)[1]


def kept_tags(tags: Mapping[str, str], container: Container, *, of_stream: bool, of_video: bool = False) -> dict[str, str]:
    """The tags to write into a container so that all it holds are kept, in the form it gives them; what describes the old file is left out.

    `of_video`: they are a video stream's, which some containers give fewer. Where two would become one, the one that is written as it is
    read stays, of several the first. MP4 calls a track's title `name` when read and `title` when written.
    """
    return _sorted_out(tags, container, of_stream=of_stream, of_video=of_video)[0]


def _sorted_out(tags: Mapping[str, str], container: Container, *, of_stream: bool, of_video: bool) -> tuple[dict[str, str], list[str]]:
    """The tags to write, by the name they are read under, and the names of those that are lost."""
    keyed = not of_stream and needs_named_keys(tags, container)
    kept: dict[str, str] = {}
    by_key: dict[str, str] = {}
    lost = []
    for name, value in sorted(_telling(tags), key=lambda tag: _key(tag[0], tags, container) != tag[0].lower()):
        held = HOLDS[container].video_language or not of_video or name.lower() != "language"
        written = _written(name, value, container, of_stream=of_stream, keyed=keyed) if held else None
        read = "title" if of_stream and name == "name" and tag_of(tags, "title") is None else _read_name(name, tags, container)
        if written is not None and of_stream and name.lower() == "language" and not written_language(value, container):
            lost.append(f"language {value}")
        if written is None or read is None or by_key.get(_key(read, tags, container), written) != written:
            lost.append(name)
        elif _key(read, tags, container) not in by_key:
            kept[read] = by_key[_key(read, tags, container)] = written
    return kept, lost


def _key(name: str, tags: Mapping[str, str], container: Container) -> str:
    """What names that a container makes one have in common: in Matroska a `tag_key`, elsewhere all but their case.

    MP4 reads both of its names for a location from one atom, which holds coordinates.
    """
    if container in _MATROSKA:
        return tag_key(name)
    if name.lower() == "location-eng" and _is_atom_of_both(tags, container):
        return "location"
    return name.lower()


def _is_atom_of_both(tags: Mapping[str, str], container: Container) -> bool:
    location = next((value for name, value in _telling(tags) if name.lower() == "location"), "")
    return container in _MP4 and bool(_ATOMS["location"].fullmatch(location))


def _read_name(name: str, tags: Mapping[str, str], container: Container) -> str | None:
    """The name under which a tag comes back, None where another has it."""
    read = RENAMED_TAGS.get(container, {}).get(name.lower())
    return name if read is None else read if tag_of(tags, read) is None else None


def _telling(tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The tags that say something of what is in the file. A value that FFmpeg read twice (`a;a`) is one."""
    for name, value in tags.items():
        half = value[: len(value) // 2]
        value = half if half and value == f"{half};{half}" else value
        if value and not is_stale(name) and value not in _EMPTY_VALUES.get(name.lower(), frozenset()):
            yield name, value


def _holds(name: str, container: Container, *, of_stream: bool) -> bool:
    held = HOLDS[container].stream_tags if of_stream else HOLDS[container].tags
    return held is None or name.lower() in held


def _written(name: str, value: str, container: Container, *, of_stream: bool, keyed: bool) -> str | None:
    """The value as a container writes it, None where it has no place for the tag or cannot say that. `keyed`: in named keys."""
    key = name.lower()
    if not _holds(name, container, of_stream=of_stream):
        return None
    if key == "creation_time":
        return _written_time(value, container, keyed=keyed)
    if (container == "mp4" or (container == "mov" and keyed)) and _is_misread(key, value):
        return None
    if of_stream:
        return (written_language(value, container) or "und") if key == "language" else value
    if key == "stereo_mode" and container in _MATROSKA:  # its streams have one, a file has none
        return None
    if key in ("track", "disc") and container == "mp4" and not keyed and (numbers := _NUMBER.fullmatch(value)):
        return "/".join(number for number in numbers.groups() if number)
    return value


def _is_misread(name: str, value: str) -> bool:
    """Whether a tag is a location that MP4's muxer takes for coordinates, though it may be none (`10 5th Avenue`), or cannot hold."""
    place = _PLACE.match(value) if name == "location" else None
    if place is None:
        return False
    return _ATOMS[name].fullmatch(value) is None or any(abs(float(degrees)) >= _MOST_DEGREES for degrees in place.groups())


def _written_time(value: str, container: Container, *, keyed: bool) -> str | None:
    time = utc(value)
    if container in _MP4:
        return (value if keyed else None) if time is None else time if int(time[:4]) in _MP4_YEARS else None
    return time if container in _MATROSKA else time or value


def utc(value: str) -> str | None:
    """A creation time as FFmpeg writes it, `2021-03-04T05:06:07.000000Z`; without a zone it is taken for UTC. None for anything else."""
    if not _TIME.fullmatch(value):
        return None
    try:
        time = datetime.fromisoformat(value)
        time = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError):
        return None
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def needs_named_keys(tags: Mapping[str, str], container: Container) -> bool:
    """Whether an MP4's or QuickTime's tags must be written as named keys (mdta): some have no atom, or say what their atom cannot.

    The common atoms are read by more players, so named keys only then: they hold anything.
    """
    if container not in _MP4:
        return False
    written = {name.lower(): value for name, value in _telling(tags)}
    telling = {name: value for name, value in written.items() if container == "mov" or not _is_misread(name, value)}
    atoms = MP4_TAGS | (MP4_ONLY_TAGS if container == "mp4" else frozenset())
    if _is_atom_of_both(tags, container) or telling.get("location") == telling.get("location-eng"):
        telling.pop("location-eng", None)
    return any(name not in atoms or not _fits(name, value, container) for name, value in telling.items())


def _fits(name: str, value: str, container: Container) -> bool:
    if name == "creation_time":
        return utc(value) is not None
    return name not in _ATOMS or (name == "location" and container == "mov") or bool(_ATOMS[name].fullmatch(value))


def written_language(language: str, container: Container) -> str | None:
    """The code that a container has for a language, None where it has none.

    Some hold three letters only, which shorter ones and those with a region (BCP 47) become; a transport stream takes several.
    """
    if container not in _MP4 | TRANSPORT:
        return language
    codes = [_three_letters(part) for part in (language.split(",") if container in TRANSPORT else [language])]
    if None in codes:
        return None
    code = ",".join(code for code in codes if code is not None)
    return mov_language(code) if container == "mov" else code


def loses_region(language: str, container: Container) -> bool:
    """Whether a container that holds a language can only hold it without what more its tag says, such as a region."""
    match = _LANGUAGE.fullmatch(language)
    return container in _MP4 | TRANSPORT and match is not None and match[2] is not None


def _three_letters(language: str) -> str | None:
    match = _LANGUAGE.fullmatch(language)
    if match is None:
        return None
    code = match[1].lower()
    return code if len(code) == 3 else ISO_639_1.get(code)


def _terminological(code: str) -> str:
    """Of the two codes some languages have, the one that is not later in the alphabet: which does not matter, but that it is one."""
    return min(code, SAME_LANGUAGE.get(code, code))


def same_language(a: str | None, b: str | None) -> bool:
    """Whether two ISO 639-2 codes name one language; none is `und`."""
    first, second = a or "und", b or "und"
    return first == second or SAME_LANGUAGE.get(first) == second


def same_place(a: str, b: str) -> bool:
    """Whether two locations are one: coordinates to the four decimals of a degree that MP4 holds, whatever their form, or equal text."""
    first, second = _PLACE.match(a), _PLACE.match(b)
    if a == b or first is None or second is None:
        return a == b
    return all(abs(float(x) - float(y)) <= _PLACES_APART for x, y in zip(first.groups(), second.groups(), strict=True))


def same_time(a: str, b: str) -> bool:
    """Whether two creation times are equal to the second, which is what MP4 holds; of one that was read twice (`a;b`) the first counts."""
    first, second = a.split(";")[0], b.split(";")[0]
    return (utc(first) or first)[:19] == (utc(second) or second)[:19]
