"""What each container holds, as FFmpeg's muxers write it and read it back. Tables only; tests hold them against the muxers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

Container = Literal["mkv", "mp4", "mov", "webm", "ts", "m2ts", "avi", "nut", "y4m"]

# AV_DISPOSITION_* by name.
DISPOSITIONS: Final[dict[str, int]] = {
    "default": 0x1,
    "dub": 0x2,
    "original": 0x4,
    "comment": 0x8,
    "lyrics": 0x10,
    "karaoke": 0x20,
    "forced": 0x40,
    "hearing_impaired": 0x80,
    "visual_impaired": 0x100,
    "clean_effects": 0x200,
    "captions": 0x10000,
    "descriptions": 0x20000,
    "metadata": 0x40000,
}

_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_u8"})
_PCM_BE = frozenset({"pcm_s16be", "pcm_s24be", "pcm_s32be"})
_PCM_FLOAT_BE = frozenset({"pcm_f32be", "pcm_f64be"})
# What only AVI's numbers for sound (WAVEFORMATEX) name: cameras, telephones, Windows Media, digital television.
_NUMBERED = frozenset({"pcm_mulaw", "pcm_alaw", "adpcm_ima_wav", "adpcm_ms", "adpcm_yamaha", "adpcm_swf", "adpcm_g722"}) | {
    *("gsm_ms", "amr_nb", "amr_wb", "aac_latm")
}
# No decoder of these begins without the size of their blocks, which nut does not keep.
_IN_BLOCKS = frozenset({"wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless", "adpcm_g726"})
_COMMON_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "dts"})


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What one container holds: FFmpeg's codec names, and what else.

    `text` is the codec that text subtitles become where they cannot be copied. `tags`: names of global tags it has, None for any;
    `stream_tags` likewise for streams. `lead_in`: packets may lie before zero, for decoders to warm up on. `covers`: attached pictures.
    `color`: it has a place for colour tags, for video whose codec has none. `steady`: all frames come at one rate, and all streams begin
    together. `hdr`: it has boxes for static HDR10 metadata, and is given them.
    """

    video: frozenset[str] = frozenset()
    audio: frozenset[str] = frozenset()
    subtitles: frozenset[str] = frozenset()
    text: str | None = None
    chapters: bool = False
    attachments: bool = False
    covers: frozenset[str] = frozenset()
    tags: frozenset[str] | None = frozenset()
    stream_tags: frozenset[str] | None = frozenset()
    video_language: bool = True  # whether a video has one where `stream_tags` holds languages
    dispositions: frozenset[str] = frozenset()
    timecode: bool = False
    rotation: bool = False
    alpha: bool = False
    lead_in: bool = False
    color: bool = False
    steady: bool = False
    hdr: bool = False
    data: frozenset[str] = field(default=frozenset())


TEXT_SUBTITLES: Final = frozenset({"subrip", "ass", "webvtt", "mov_text", "text"})
# Teletext's characters and closed captions, which are neither text as FFmpeg knows it nor pictures.
CODED_SUBTITLES: Final = frozenset({"eia_608", "dvb_teletext", "arib_caption"})

_MKV_DISPOSITIONS = frozenset({"default", "dub", "original", "comment", "forced", "hearing_impaired", "visual_impaired", "descriptions"})
TRANSPORT: Final[frozenset[Container]] = frozenset({"ts", "m2ts"})
_MP4_DISPOSITIONS = frozenset({"default", "dub", "comment", "forced", "hearing_impaired", "visual_impaired", "captions", "descriptions"})

_TS: Final = Holding(
    video=frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}),
    audio=_COMMON_AUDIO | {"opus", "mp2", "aac_latm", "s302m"},
    subtitles=frozenset({"dvb_subtitle"}),
    stream_tags=frozenset({"language"}),
    video_language=False,
    dispositions=frozenset({"hearing_impaired", "visual_impaired", "clean_effects"}),
)

# What FFmpeg's muxer must be told to write a container at all: Blu-ray's packets have a time before each, 192 bytes with it.
MUXER_OPTIONS: Final[dict[Container, dict[str, str]]] = {"m2ts": {"mpegts_m2ts_mode": "1"}}

HOLDS: Final[dict[Container, Holding]] = {
    "mkv": Holding(
        video=frozenset(
            {
                *("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1", "prores", "theora"),
                *("vvc", "msmpeg4v3", "vc1", "dirac", "huffyuv"),
            }
        ),
        audio=_COMMON_AUDIO
        | _PCM
        | _PCM_BE
        | _NUMBERED
        | _IN_BLOCKS
        | {"opus", "vorbis", "flac", "mp2", "alac", "truehd", "wavpack", "tta", "ra_144"},
        subtitles=frozenset({"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}),
        text="subrip",
        chapters=True,
        attachments=True,
        covers=frozenset({"mjpeg", "png"}),
        tags=None,
        stream_tags=None,
        dispositions=_MKV_DISPOSITIONS,
        timecode=True,
        rotation=True,
        alpha=True,
        lead_in=True,
        color=True,
    ),
    "mp4": Holding(
        video=frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}),
        audio=_COMMON_AUDIO | _PCM - {"pcm_u8"} | _PCM_BE | _PCM_FLOAT_BE | {"opus", "vorbis", "flac", "mp2", "alac"},
        subtitles=frozenset({"mov_text"}),
        text="mov_text",
        chapters=True,
        covers=frozenset({"mjpeg", "png"}),
        tags=None,
        stream_tags=frozenset({"language", "title", "name", "handler_name", "creation_time", "timecode"}),
        dispositions=_MP4_DISPOSITIONS,
        timecode=True,
        rotation=True,
        lead_in=True,
        color=True,
        hdr=True,
    ),
    "mov": Holding(
        video=frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"}),
        audio=_COMMON_AUDIO
        | _PCM
        | _PCM_BE
        | _PCM_FLOAT_BE
        | {"mp2", "alac", "pcm_s8", "pcm_mulaw", "pcm_alaw", "adpcm_ima_qt", "amr_nb", "amr_wb", "gsm", "nellymoser"},
        subtitles=frozenset({"mov_text", "eia_608"}),
        text="mov_text",
        chapters=True,
        tags=None,
        stream_tags=frozenset({"language", "title", "name", "handler_name", "creation_time", "timecode"}),
        dispositions=frozenset({"default"}),
        timecode=True,
        rotation=True,
        alpha=True,
        lead_in=True,
        color=True,
        hdr=True,
    ),
    "webm": Holding(
        video=frozenset({"vp8", "vp9", "av1"}),
        audio=frozenset({"opus", "vorbis"}),
        subtitles=frozenset({"webvtt"}),
        text="webvtt",
        chapters=True,
        tags=None,
        stream_tags=None,
        dispositions=frozenset({"default", "forced"}),
        timecode=True,
        rotation=True,
        alpha=True,
        lead_in=True,
        color=True,
    ),
    "ts": _TS,
    # Blu-ray has numbers for one video, and for other subtitles alone, of which FFmpeg loses the language.
    "m2ts": replace(_TS, video=frozenset(), subtitles=frozenset(), audio=_TS.audio | {"pcm_bluray"}),
    "avi": Holding(
        # H.264 as MP4 and Matroska store it is refused; what we encode ourselves is not.
        video=frozenset({"mpeg4", "mjpeg", "ffv1", "mpeg2video"}),
        audio=_PCM | {"aac", "mp3", "mp2", "ac3", "pcm_mulaw", "pcm_alaw", "adpcm_ima_wav", "adpcm_ms", "gsm_ms"},
        tags=frozenset({"artist", "comment", "copyright", "date", "genre", "title", "timecode"}),
        stream_tags=frozenset({"title"}),
        timecode=True,
        alpha=True,
        steady=True,
    ),
    "nut": Holding(
        video=frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1", "theora"}),
        # E-AC-3 comes back from nut as AC-3.
        audio=_COMMON_AUDIO - {"eac3"}
        | _PCM
        | _PCM_BE
        | _PCM_FLOAT_BE
        | _NUMBERED
        | {"opus", "vorbis", "flac", "mp2", "pcm_s8", "wavpack"},
        # Nut stores no durations, which text needs; pictures carry theirs.
        subtitles=frozenset({"dvd_subtitle", "dvb_subtitle"}),
        chapters=True,
        tags=None,
        stream_tags=None,
        dispositions=frozenset({"default", "dub", "original", "comment", "lyrics", "karaoke"}),
        timecode=True,
        alpha=True,
    ),
    "y4m": Holding(),
}

# QuickTime's numbered languages, as FFmpeg writes them; others become "undetermined" in mov.
MOV_LANGUAGES: Final = frozenset(
    {
        *("eng", "fra", "ger", "ita", "dut", "sve", "spa", "dan", "por", "nor", "heb", "jpn", "ara", "fin", "gre", "ice", "mlt", "tur"),
        *("chi", "urd", "hin", "tha", "kor", "lit", "pol", "hun", "est", "lav", "rus", "iri", "alb", "ron", "ces", "slk", "slv", "yid"),
        *("mac", "bul", "ukr", "bel", "uzb", "kaz", "aze", "arm", "geo", "mol", "kir", "tgk", "tuk", "mon", "pus", "kur", "kas", "snd"),
        *("tib", "nep", "san", "mar", "ben", "asm", "guj", "ori", "mal", "kan", "tam", "tel", "bur", "khm", "lao", "vie", "ind", "tgl"),
        *("may", "amh", "tir", "orm", "som", "swa", "run", "mlg", "epo"),
    }
)
# ISO 639-2 has two codes for some languages; these pairs mean the same.
SAME_LANGUAGE: Final[dict[str, str]] = {
    a: b
    for pair in (
        *(("alb", "sqi"), ("arm", "hye"), ("baq", "eus"), ("bur", "mya"), ("chi", "zho"), ("cze", "ces"), ("dut", "nld"), ("fre", "fra")),
        *(("geo", "kat"), ("ger", "deu"), ("gre", "ell"), ("ice", "isl"), ("mac", "mkd"), ("mao", "mri"), ("may", "msa"), ("per", "fas")),
        *(("rum", "ron"), ("slo", "slk"), ("tib", "bod"), ("wel", "cym")),
    )
    for a, b in (pair, pair[::-1])
}

# ISO 639-1, with the three codes it has given up, in ISO 639-2.
ISO_639_1: Final[dict[str, str]] = dict(
    pair.split(":")
    for row in (
        "aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bh:bih bi:bis bm:bam",
        "bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym da:dan de:deu dv:div dz:dzo ee:ewe",
        "el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj",
        "gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk in:ind io:ido",
        "is:isl it:ita iu:iku iw:heb ja:jpn ji:yid jv:jav ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas",
        "ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal",
        "mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji",
        "om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme",
        "sg:sag si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha",
        "ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln",
        "wo:wol xh:xho yi:yid yo:yor za:zha zh:zho zu:zul",
    )
    for pair in row.split()
)


def mov_language(language: str) -> str | None:
    """The code that QuickTime has for a language, None where it has none. `und` stays."""
    for code in (language, SAME_LANGUAGE.get(language, language)):
        if code in MOV_LANGUAGES or code == "und":
            return code
    return None


# These keep chapters as a track of text, whose first sample is shown from the beginning on.
CHAPTERS_FROM_ZERO: Final = frozenset({"mp4", "mov"})
# Their tracks last until the end of the packet decoded last: packets have lengths of decode time, and frames none of their own.
ENDS_BY_DTS: Final = frozenset({"mp4", "mov"})
# What is read back tells when the last frame ends.
TELLS_END: Final = ENDS_BY_DTS | {"mkv", "webm"}
# Tags that describe the old file's bytes and would be false in the new one.
STALE_TAGS: Final = frozenset(
    {
        *("encoder", "major_brand", "minor_version", "compatible_brands", "rotate", "duration", "software", "vendor_id", "encoded_by"),
        *("bps", "number_of_frames", "number_of_bytes", "_statistics_tags", "_statistics_writing_app", "_statistics_writing_date_utc"),
        "encoding_tool",
    }
)
# Names of tags that FFmpeg reads as others from a container.
_MATROSKA_NAMES = {"lead_performer": "performer", "part_number": "track"}
RENAMED_TAGS: Final[dict[str, dict[str, str]]] = {
    "mkv": _MATROSKA_NAMES,
    "webm": _MATROSKA_NAMES,
    "nut": {"author": "artist", "creationtime": "date", "x-creationtime": "date", "x-disposition": "disposition"},
}
# Global tags that MP4 and QuickTime have atoms for; with any other, all are written as named keys (mdta) instead.
MP4_TAGS: Final = frozenset({"title", "artist", "comment", "date", "genre", "copyright", "creation_time", "timecode", "location"})
MP4_ONLY_TAGS: Final = frozenset(
    {"description", "album", "album_artist", "composer", "lyrics", "synopsis", "show", "network", "grouping", "track", "disc"}
)


def is_stale(tag: str) -> bool:
    """Whether a tag says something of the old file that cannot be true of the new one; language suffixes (`BPS-eng`) aside."""
    return tag.lower().split("-")[0] in STALE_TAGS
