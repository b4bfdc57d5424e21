"""The one place where a source is opened: as a local file, with nothing else within its reach."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from a2n_video.errors import DecodeError, InputError
from a2n_video.io.chunks import HEAD, READABLE, animated_frames, demuxer_of, is_jpeg_in_tiff

# Nothing but local files is read, and no demuxer is used that opens files a file names (playlists, scripts, image patterns).
PROTOCOLS: Final = "file,pipe"
FORMATS: Final = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,nut,flv,live_flv,asf,ogg,mxf,gxf,ivf,rm,wtv,dv,swf,nsv,y4m,yuv4mpegpipe",
        "h264,hevc,av1,obu,m4v,vc1,dirac,gif,apng,webp_pipe,png_pipe,jpeg_pipe,mjpeg,bmp_pipe,tiff_pipe,image2pipe,ea,bink,smk,roq,nuv,avs2,avs3,vvc,evc,r3d,lmlm4",
    )
)
_ATTACHED_PICTURE: Final = 0x400
# Pictures that FFmpeg would open with the demuxer of image patterns, which is none of ours: all of these names, and others where
# something in the name or in a folder's looks like a pattern.
_JPEGS: Final = frozenset({".jpg", ".jpeg"})
_OF_PATTERNS: Final = frozenset("%*?[{")


def open_source(path: Path | str, *, ignore_edits: bool = False) -> InputContainer:
    """Open a local file for demuxing; the caller closes it and is its only thread.

    Whatever the name looks like, it is read as a file (`file:`): no network, no playlist, no device. InputError where it cannot be
    read (missing, a folder, no permission), DecodeError where it is no video file, or a picture that FFmpeg would make black. Both one
    line. `ignore_edits` passes over the edit list of an MP4 or QuickTime file (`VideoInfo.ignore_edits`).
    """
    path = Path(path)
    head = _head(path)
    demuxer = _demuxer(path, head)
    if demuxer_of(head) == "tiff_pipe" and is_jpeg_in_tiff(path):
        raise DecodeError(f"{path}: a TIFF compressed as JPEG is not taken; save it with LZW, Deflate or no compression, or as a .jpg")
    try:
        return av.open(
            f"file:{path}",
            format=demuxer,
            options={"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS, **({"ignore_editlist": "1"} if ignore_edits else {})},
        )
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(f"{path}: not a video file that can be opened ({reason})") from error


def _demuxer(path: Path, head: bytes) -> str | None:
    """The demuxer of a picture whose name would keep FFmpeg from it; None: FFmpeg finds it."""
    if path.suffix.lower() not in READABLE:
        return None
    found = demuxer_of(head)
    if found == "jpeg_pipe" and path.suffix.lower() in _JPEGS:
        return found
    if not _OF_PATTERNS & set(str(path)):
        return None
    return "apng" if found == "png_pipe" and animated_frames(path) else found


def _head(path: Path) -> bytes:
    """The first bytes; the usual reasons for not opening are one line each here, before FFmpeg words them."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a file; give files, or a folder with --output-dir") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    except (OSError, ValueError) as error:
        code = errno.errorcode.get(getattr(error, "errno", 0) or 0, "")
        raise InputError(f"{path}: cannot be read ({error.args[-1] if error.args else code})") from None
    if not head:
        raise DecodeError(f"{path}: the file is empty")
    return head


def video_stream(container: InputContainer, path: Path | str, number: int | None = None) -> VideoStream:
    """The video to upscale: FFmpeg's best one that is not a cover picture, or the one of that number among those. DecodeError for none."""
    best = container.streams.best("video")
    real = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not real:
        raise DecodeError(f"{path}: there is no video in this file")
    if number is not None:
        return real[min(number, len(real) - 1)]
    return best if best in real else real[0]
