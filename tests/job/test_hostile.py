"""Hostile names and files: read as the one local file they are, or refused; nothing else is read, nothing is connected."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from a2n_video.errors import InputError, UnsupportedFormatError
from a2n_video.io.probe import probe
from tests.job import child
from tests.made import decoded, make_source

SENTINEL = b"A2N SENTINEL 8472"

NAMES = [
    b"-leading.mkv",
    b"--help.mkv",
    b"new\nline.mkv",
    b'quo"te.mkv',
    b"quo'te.mkv",
    b"back\\slash.mkv",
    b"per%cent.mkv",
    b"%d.mkv",
    b"50%_off.mkv",
    b"frame%03d.mkv",
    b"non\xff\xfeutf8.mkv",
    b"l" * 251 + b".mkv",
    b"concat:a.mkv",
    b"concat:a|b.mkv",
    b"http:x.mkv",
    b"file:x.mkv",
    b"cache:x.mkv",
    b"pipe:0.mkv",
    b"data:,x.mkv",
    b"sp ace\ttab.mkv",
    b"$(touch owned).mkv",
    "emoji \N{SNOWMAN} \u202e.mkv".encode(),
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("hostile") / "a.mkv", pts=range(6))


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[2:30] for name in NAMES])
def test_any_name_is_a_file_name(clip: Path, tmp_path: Path, name: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, dest = (tmp_path / folder / os.fsdecode(name) for folder in ("in", "out"))
    source.write_bytes(clip.read_bytes())
    # Relative, as a user in that folder would give it, "--" before what looks like an option.
    os.chdir(tmp_path / "in")
    done = child.run("--model", "nearest", "--", os.fsdecode(name), dest)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [os.fsdecode(name)]
    copy = tmp_path / "copy.mkv"
    dest.rename(copy)
    assert len(decoded(copy)) == 6
    assert [p.name for p in (tmp_path / "in").iterdir()] == [os.fsdecode(name)]


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A loopback port and whoever came to it."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                while True:
                    connection, address = server.accept()
                    came.append(address)
                    connection.close()
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def playlists(sentinel: Path, port: int) -> dict[str, bytes]:
    path, url = str(sentinel).encode(), b"http://127.0.0.1:%d/x.ts" % port
    m3u8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"
    mpd = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    mpd += b"<Period><AdaptationSet>"
    mpd += (
        b'<Representation id="1" bandwidth="1" mimeType="video/mp4"><BaseURL>%s</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    return {
        "local.m3u8": m3u8 % path,
        "file-url.m3u8": m3u8 % (b"file://" + path),
        "remote.m3u8": m3u8 % url,
        "concat-url.m3u8": m3u8 % (b"concat:" + path + b"|" + url),
        "key.m3u8": b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="%s"\n' % url + m3u8[8:] % path,
        "list.ffconcat": b"ffconcat version 1.0\nfile '%s'\n" % path,
        "remote.ffconcat": b"ffconcat version 1.0\nfile '%s'\n" % url,
        "local.mpd": mpd % path,
        "remote.mpd": mpd % url,
        "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video %d RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        % port,
        "playlist.mp4": m3u8 % path,
        "playlist.ts": m3u8 % url,
        "script.avs": b'FFVideoSource("%s")\n' % path,
        "image%03d.m3u8": m3u8 % path,
    }


def test_playlists_reach_nothing(tmp_path: Path, clip: Path, listener: tuple[int, list[object]]) -> None:
    port, came = listener
    sentinel = tmp_path / "sentinel.mkv"
    sentinel.write_bytes(clip.read_bytes() + SENTINEL)
    os.utime(sentinel, (1, 1))  # an access changes the first time, where the mount keeps it
    for name, text in playlists(sentinel, port).items():
        path = tmp_path / name
        path.write_bytes(text)
        with pytest.raises(InputError):
            probe(path)
        assert not came, name


def test_a_playlist_named_on_the_command_line(tmp_path: Path, clip: Path, listener: tuple[int, list[object]]) -> None:
    port, came = listener
    path = tmp_path / "a.m3u8"
    path.write_bytes(playlists(clip, port)["local.m3u8"])
    for name in (path, f"http://127.0.0.1:{port}/a.mkv", f"concat:{clip}|{clip}", f"cache:{clip}", f"tcp://127.0.0.1:{port}"):
        done = child.run(name, tmp_path / "out.mkv", "--model", "nearest")
        assert done.returncode == 3, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not came
    assert not (tmp_path / "out.mkv").exists()


def test_the_whitelist_is_what_keeps_playlists_out(tmp_path: Path, clip: Path) -> None:
    """Without it FFmpeg follows them: the cases above can fail."""
    path = tmp_path / "a.ffconcat"
    path.write_bytes(b"ffconcat version 1.0\nfile '%s'\n" % clip.name.encode())
    (tmp_path / clip.name).write_bytes(clip.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video


def huge(path: Path, width: int, height: int) -> Path:
    """A tiny file that says its pictures are huge: one png, its header patched, in an avi of its own."""
    with av.open(str(path), "w", format="avi") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"  # type: ignore[attr-defined]
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")))  # type: ignore[attr-defined]
        output.mux(stream.encode(None))  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    place = data.index(b"strf") + 8 + 4
    data[place : place + 8] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def test_pictures_beyond_the_limit_are_refused_before_they_are_made(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="--max-pixels"):
        probe(clip, max_pixels=64 * 48 - 1)
    assert probe(clip, max_pixels=64 * 48).width == 64
    done = child.run(clip, tmp_path / "out.mkv", "--model", "nearest", "--max-pixels", "100")
    assert done.returncode == 3
    assert "--max-pixels" in done.stderr


def test_a_header_that_lies_about_size_eats_no_memory(tmp_path: Path) -> None:
    path = huge(tmp_path / "huge.avi", 32000, 32000)
    done = child.run(path, tmp_path / "out.mkv", "--model", "nearest", mode="limit", point="600")
    assert done.returncode in (0, 3, 4), done.stderr
    assert "MemoryError" not in done.stderr
