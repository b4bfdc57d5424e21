"""Upscale mutated sources one by one in this process, a line of JSON for each: fuzz_child.py FOLDER SEED FIRST COUNT SUFFIX SOURCE...

SUFFIX is the results' container; for webm, sound and text are made into what it holds.
If this process dies, the mutant after the last line killed it.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import traceback
from pathlib import Path

import av

from a2n_video.errors import A2NVideoError, exit_code
from a2n_video.job.run import upscale_video

MEMORY_BYTES = 3 << 30


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, runs zeroed, blocks lost, doubled or swapped, the end cut off: one to a few of them."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        place, length = rng.randrange(len(out)), rng.randrange(1, 400)
        match rng.randrange(6):
            case 0:
                for _ in range(rng.choice([1, 4, 30])):
                    out[rng.randrange(len(out))] = rng.randrange(256)
            case 1:
                out[place : place + length] = bytes(len(out[place : place + length]))
            case 2 if len(out) > 2 * length:
                del out[place : place + length]
            case 3:
                out[place:place] = out[place : place + length]
            case 4:
                head = rng.randrange(min(200, len(out)))  # headers are short and matter most
                out[head] ^= 1 << rng.randrange(8)
            case _ if len(out) > 2000:
                del out[-rng.randrange(1, len(out) // 3) :]
    return bytes(out)


def decodable(path: Path) -> int:
    """Frames a plain decoder makes of the best video stream."""
    count = 0
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.best("video")
            if stream is None:
                return 0
            for packet in container.demux(stream):
                try:
                    count += len(stream.decode(packet))
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError, ValueError, TypeError, RuntimeError):
        return count
    return count


WEBM = {"codec": "libvpx-vp9", "preset": "8", "reencode_audio": "opus"}


def one(path: Path, dest: Path) -> tuple[int, int, str]:
    """Exit code, frames of the result, the error's words, for a bug of ours with its traceback."""
    changes = WEBM if dest.suffix == ".webm" else {"preset": "ultrafast"}
    try:
        result = upscale_video(path, dest, model="nearest", overwrite=True, resume=False, max_pixels=1 << 20, **changes)
    except A2NVideoError as error:
        return exit_code(error), 0, f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - what the command line ends with code 1 for
        return exit_code(error), 0, "".join(traceback.format_exception(error))
    return result.exit_code, result.frames, ""


def main() -> None:
    folder, seed, first, count, suffix, *sources = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    whole = [Path(source) for source in sources]
    for number in range(int(first), int(first) + int(count)):
        source = whole[number % len(whole)]
        path = Path(folder) / f"mutant{source.suffix}"
        path.write_bytes(mutated(source.read_bytes(), random.Random(f"{seed}/{number}")))
        print(json.dumps({"begin": number}), flush=True)
        started = time.monotonic()
        code, frames, error = one(path, Path(folder) / f"out.{suffix}")
        took = time.monotonic() - started
        line = {"number": number, "code": code, "frames": frames, "decodable": decodable(path), "error": error, "seconds": took}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
