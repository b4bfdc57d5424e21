"""What is copied into the final file: packet for packet, on the result's clock, with its tags, in any container that takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import OutputError
from a2n_video.io.faults import listening
from a2n_video.io.mux.joining import segment_container
from a2n_video.io.mux.remux import RemuxJob, RemuxResult, remux
from a2n_video.io.outfile import OutFile
from a2n_video.io.probe import probe
from a2n_video.io.writer import VideoWriter
from a2n_video.media.final import FinalFile
from a2n_video.media.index import PacketTime, build_time_map
from a2n_video.media.streams import StreamFate, StreamPlan
from tests.made import BT709, decoded, frames, make_source, packets, settings
from tests.media.test_hdr import P3

MS = Fraction(1, 1000)
FONT = bytes(range(256)) * 40


def copy_all(source: Path, box: str) -> StreamPlan:
    """Everything but the video is copied."""
    info = probe(source)
    fates = [
        StreamFate(what=s.codec, kind=s.kind, index=s.index, fate="upscaled" if s.index == info.video_index else "copied")
        for s in info.streams
    ]
    return StreamPlan(container=box, fates=tuple(fates))  # type: ignore[arg-type]


def job_for(
    source: Path, box: str, codec: str = "libx264", *, cut: Mapping[str, Any] | None = None, sar: Fraction = Fraction(1), **changes: Any
) -> RemuxJob:
    """A job whose one segment shows numbered pictures at the source's own times."""
    info = probe(source)
    times = [PacketTime(pts, pts) for pts, _, _ in decoded(source)]
    time_map = build_time_map(times, info.time_base, info.frame_rate).cut(**cut or {})
    path = source.with_suffix(f".{box}.seg")
    file = OutFile(path, "segment")
    with VideoWriter(file, settings(codec, info.time_base, segment_container(codec), sar=sar)) as writer:  # type: ignore[arg-type]
        for frame in frames(time_map.times, info.time_base, pix_fmt=writer.settings.pix_fmt):
            writer.write(frame)
    file.finish()
    final = FinalFile(info=info, plan=copy_all(source, box), time_map=time_map, width=64, height=48, color=BT709, sar=sar)
    return RemuxJob(final=dataclasses.replace(final, **changes), segments=(path,), time_base=info.time_base, frame_rate=info.frame_rate)


def changed(job: RemuxJob, **changes: Any) -> RemuxJob:
    """The job with another final file in mind."""
    return dataclasses.replace(job, final=dataclasses.replace(job.final, **changes))


def written(job: RemuxJob) -> tuple[Path, RemuxResult]:
    dest = job.final.info.path.with_name(f"out.{job.final.plan.container}")
    file = OutFile(dest)
    result = remux(job, file)
    file.finish()
    return dest, result


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return make_source(
        tmp_path / "rich.mkv",
        audio=("aac", "flac"),
        subtitles=[(Fraction(k, 4), Fraction(k, 4) + Fraction(1, 5), f"line {k}") for k in range(8)],
        chapters=[(Fraction(0), Fraction(1), "one"), (Fraction(1), Fraction(2), "two")],
        attachments=[("font.ttf", "application/x-truetype-font", FONT), ("läs mig.txt", "text/plain", b"x")],
        metadata={"title": "Tïtle", "comment": "kept"},
    )


def test_everything_reaches_mkv(rich: Path) -> None:
    dest, result = written(job_for(rich, "mkv"))
    lead = packets(dest, 1)[0][0] - packets(rich, 1)[0][0]  # type: ignore[operator]  # Matroska moves all alike so that nothing is negative
    for index in (1, 2, 3):
        before, after = packets(rich, index), packets(dest, index)
        assert [hash for _, _, hash in after] == [hash for _, _, hash in before]
        assert [time - lead for time, _, _ in after] == [time for time, _, _ in before]  # type: ignore[operator]
        assert result.copied[index] == len(before)
    assert [pts * base - lead for pts, base, _ in decoded(dest)] == [pts * base for pts, base, _ in decoded(rich)]
    with av.open(str(dest)) as output:
        assert [s.type for s in output.streams] == ["video", "audio", "audio", "subtitle", "attachment", "attachment"]
        assert [s.language for s in list(output.streams)[:4]] == [None, "deu", "fra", "jpn"]
        assert output.streams[1].metadata["title"] == "tone 0"
        assert [(a.name, a.mimetype, a.data) for a in output.streams.attachments] == [  # type: ignore[attr-defined]
            ("font.ttf", "application/x-truetype-font", FONT),
            ("läs mig.txt", "text/plain", b"x"),
        ]
        assert {"title": "Tïtle", "COMMENT": "kept"}.items() <= dict(output.metadata).items()
        assert [(c["start"] * Fraction(c["time_base"]), c["metadata"]["title"]) for c in output.chapters()] == [(0, "one"), (1, "two")]


def test_chapters_can_be_dropped(rich: Path) -> None:
    job = job_for(rich, "mkv")
    fates = (*job.final.plan.fates, StreamFate(what="chapters (2)", kind="chapters", fate="dropped"))
    dest, _ = written(changed(job, plan=dataclasses.replace(job.final.plan, fates=fates)))
    with av.open(str(dest)) as output:
        assert output.chapters() == []


@pytest.mark.parametrize("box", ["mkv", "mp4", "mov", "ts"])
@pytest.mark.parametrize("delay", [Fraction(-3, 10), Fraction(0), Fraction(1, 2)])
def test_offsets_between_streams_survive(tmp_path: Path, box: str, delay: Fraction) -> None:
    start = 20 if delay < 0 else 0
    source = make_source(
        tmp_path / "a.mkv",
        pts=[time + start * 40 for time in (0, 40, 80, 101, 160, 220, 260, 300, 333)],
        time_base=MS,
        audio_delay=max(delay, delay + start * 40 * MS),
    )
    dest, _ = written(job_for(source, box))

    def offset(path: Path) -> Fraction:
        pts, base, _ = decoded(path)[0]
        return packets(path, 1)[0][0] - pts * base  # type: ignore[operator, no-any-return]

    assert abs(offset(dest) - offset(source)) <= MS
    assert [hash for _, _, hash in packets(dest, 1)] == [hash for _, _, hash in packets(source, 1)] or box == "ts"  # ADTS headers


@pytest.mark.parametrize("box", ["mp4", "mov", "nut"])
def test_vfr_is_exact_where_the_container_can(tmp_path: Path, box: str) -> None:
    base = Fraction(1, 90000)
    pts = [0, 3003, 6006, 6007, 9009, 31234, 31300, 40000]
    source = make_source(tmp_path / "a.mp4", pts=pts, time_base=base, audio=())
    dest, _ = written(job_for(source, box))
    assert [number * unit for number, unit, _ in decoded(dest)] == [time * base for time in pts]


@pytest.mark.parametrize(
    ("codec", "box"),
    [
        ("libx265", "mp4"),
        ("libx265", "mov"),
        ("libx264", "mkv"),
        ("ffv1", "mkv"),
        ("libvpx-vp9", "webm"),
        ("libvpx-vp9", "mp4"),
        ("prores_ks", "mov"),
        ("libsvtav1", "mp4"),
    ],
)
def test_tags_of_the_picture(tmp_path: Path, codec: str, box: str) -> None:
    source = make_source(tmp_path / "a.mp4", audio=())
    quarter = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    dest, _ = written(job_for(source, box, codec, sar=Fraction(5, 4), display_matrix=quarter))
    with av.open(str(dest)) as output:
        stream: Any = output.streams.video[0]
        frame = next(output.decode(stream))
        assert Fraction(stream.sample_aspect_ratio) == Fraction(5, 4)
        assert frame.rotation == -90
        context = stream.codec_context
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert (context.codec_tag == "hvc1") == (codec == "libx265")
        assert Fraction(stream.average_rate) == 25


@pytest.mark.parametrize("box", ["mkv", "mp4"])
def test_dispositions_survive(tmp_path: Path, box: str) -> None:
    plain = make_source(tmp_path / "a.mkv", audio=("aac", "aac"))
    job = job_for(plain, box)
    forced = [dataclasses.replace(s, disposition={1: 0x80, 2: 0x1}.get(s.index, 1)) for s in job.final.info.streams]
    dest, _ = written(changed(job, info=dataclasses.replace(job.final.info, streams=tuple(forced))))
    with av.open(str(dest)) as output:
        assert [int(s.disposition) & 0xFFFF for s in output.streams.audio] == [0x80, 0x1]


@pytest.mark.parametrize("box", ["mkv", "mp4"])
def test_a_cut_takes_all_streams_with_it(rich: Path, box: str) -> None:
    job = job_for(rich, box, cut={"start": Fraction(12, 25), "end": Fraction(37, 25)})
    copied = tuple(f for f in job.final.plan.fates if f.kind in ("video", "audio") or box == "mkv")
    dest, _ = written(changed(job, plan=dataclasses.replace(job.final.plan, fates=copied)))
    video = [pts * base for pts, base, _ in decoded(dest)]
    assert video == [Fraction(k, 25) for k in range(25)]
    frame = Fraction(1024, 48000)
    sound = [time for time, _, _ in packets(dest, 1)]
    assert 0 <= sound[0] <= frame  # type: ignore[operator]
    assert 1 - frame <= sound[-1] < 1  # type: ignore[operator]
    with av.open(str(dest)) as output:
        chapters = [(c["start"] * Fraction(c["time_base"]), c["end"] * Fraction(c["time_base"])) for c in output.chapters()]
    assert chapters == [(0, Fraction(13, 25)), (Fraction(13, 25), 1)]
    if box == "mkv":
        lines = [(time, duration) for time, duration, _ in packets(dest, 3)]
        assert lines == [(Fraction(k, 4) - Fraction(12, 25), Fraction(1, 5)) for k in range(2, 6)]


@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("box", ["mkv", "mp4", "nut"])
def test_sound_whose_tick_is_a_packet_is_cut_and_moved_exactly(box: str, number: int, tmp_path: Path) -> None:
    """In AVI one tick of MP3 is 24 ms: a shift in such ticks is off by up to 12, and takes in a packet too many."""
    source = make_source(tmp_path / "a.avi", codec="mpeg4", audio=("libmp3lame",))
    times = [time for time, _, _ in packets(source, 1)]
    job = job_for(source, box, cut={"start": Fraction(number, 25)})
    start = -job.final.time_map.shift  # the first frame there is at or after --start
    expected = [time - start for time in times if time is not None and time >= start]
    dest, result = written(job)
    sound, first = [time for time, _, _ in packets(dest, 1)], min(time for time, _, _ in packets(dest, 0) if time is not None)
    assert result.copied[1] == len(sound) == len(expected)
    assert all(abs(a - first - b) <= MS for a, b in zip(sound, expected, strict=True))  # type: ignore[operator]


@pytest.mark.parametrize("box", ["mp4", "mov", "mkv"])
def test_chapters_that_begin_late_do(box: str, tmp_path: Path) -> None:
    """MP4's are a track of text, whose first would begin with the file."""
    late = [(Fraction(1), Fraction(2), "two"), (Fraction(2, 5), Fraction(1), "one")]
    source = make_source(tmp_path / "a.nut", audio=(), chapters=late)
    dest, _ = written(job_for(source, box))
    with av.open(str(dest)) as output:
        found = [(c["start"] * Fraction(c["time_base"]), c["metadata"].get("title", "")) for c in output.chapters()]
    assert found == [*([] if box == "mkv" else [(0, "")]), (Fraction(2, 5), "one"), (1, "two")]


@pytest.mark.parametrize("codec", ["flac", "libopus"])
def test_the_last_packet_of_a_source_without_durations_is_shown(codec: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "a.nut", audio=(codec,))
    dest, _ = written(job_for(source, "mp4"))
    assert [hash for _, _, hash in packets(dest, 1)] == [hash for _, _, hash in packets(source, 1)]


def test_a_line_that_reaches_over_a_cut_is_cut_too(tmp_path: Path) -> None:
    source = make_source(tmp_path / "a.mkv", audio=(), subtitles=[(Fraction(0), Fraction(2), "all through")])
    dest, _ = written(job_for(source, "mkv", cut={"start": Fraction(12, 25), "end": Fraction(37, 25)}))
    assert [(time, duration) for time, duration, _ in packets(dest, 1)] == [(0, 1)]


def test_a_cover_stays_a_cover(tmp_path: Path) -> None:
    source = make_source(tmp_path / "plain.mp4", audio=("aac",))
    covered = tmp_path / "covered.mp4"
    picture = tmp_path / "cover.png"
    with av.open(str(picture), "w", format="image2") as output:
        still: Any = output.add_stream("png")
        still.width, still.height, still.pix_fmt = 32, 32, "rgb24"
        output.mux(still.encode(av.VideoFrame(32, 32, "rgb24")))
        output.mux(still.encode(None))
    with av.open(str(source)) as a, av.open(str(picture)) as b, av.open(str(covered), "w") as output:
        streams = {s: output.add_stream_from_template(s, opaque=True) for s in (a.streams[0], a.streams[1], b.streams[0])}
        streams[b.streams[0]].disposition = 0x400  # type: ignore[assignment]
        for container in (b, a):
            for packet in container.demux():
                if packet.size:
                    packet.stream = streams[packet.stream]
                    output.mux(packet)
    for box in ("mp4", "mkv"):  # mov has no place for one
        dest, _ = written(job_for(covered, box))
        with av.open(str(dest)) as output:
            covers = [s for s in output.streams.video if int(s.disposition) & 0x400]
            assert len(covers) == 1, box
            [packet] = [bytes(p) for p in output.demux(covers[0]) if p.size]
            assert packet == picture.read_bytes()


def test_a_full_disk_is_told_wherever_it_strikes(rich: Path) -> None:
    job = job_for(rich, "mkv")
    writes: list[str] = []
    with listening(writes.append):
        written(job)
    for nth in range(1, writes.count("result.write.before") + 1):
        seen = 0

        def strike(point: str, nth: int = nth) -> None:
            nonlocal seen
            seen += point == "result.write.before"
            if seen == nth:
                raise OSError(28, "No space left on device")

        with listening(strike), pytest.raises(OutputError, match="disk is full"):
            written(job)


def test_a_broken_source_gives_what_it_can(tmp_path: Path) -> None:
    source = make_source(tmp_path / "a.mkv", pts=range(100))
    job = job_for(source, "mkv")
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    dest, result = written(job)
    assert result.video_packets == 100
    assert 0 < result.copied[1] < 190
    assert len(decoded(dest)) == 100


@pytest.mark.parametrize("box", ["mkv", "mp4", "mov"])
def test_shape_and_hdr10_go_to_the_made_video_not_to_a_copied_one_of_its_size(box: str, tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    with av.open(str(source), "w") as output:
        output.add_attachment("font.ttf", "application/x-truetype-font", FONT)
        videos: list[Any] = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for disposition, video in enumerate(videos):
            video.width, video.height, video.pix_fmt, video.disposition = 64, 48, "yuv420p", disposition
        for video in videos:
            output.mux([packet for picture in [*frames(range(3), Fraction(1, 25)), None] for packet in video.encode(picture)])
    assert probe(source).video.disposition == 1
    job = changed(job_for(source, box, sar=Fraction(4, 3)), hdr=P3)
    if box != "mkv":
        fates = tuple(fate for fate in job.final.plan.fates if fate.kind == "video")
        job = changed(job, plan=dataclasses.replace(job.final.plan, fates=fates))
    dest, _ = written(job)
    with av.open(str(dest)) as container:
        copied, made = container.streams.video[:2]
        assert (copied.sample_aspect_ratio or 1, made.sample_aspect_ratio) == (1, Fraction(4, 3))
        boxes = [{str(kind) for kind in video.codec_context.coded_side_data} for video in (copied, made)]
        assert boxes[0] == set() and ("mastering_display_metadata" in boxes[1]) == (box != "mkv")
