"""The README's pictures, made anew by the commands that it shows: `python -m tests.readme_pictures [NAME...]`, from the repository's root.

All but two need only `examples/clip.mp4`. The ablation measures on Set5, the comparison page on a halved and compressed clip (both from
the shared reference material) and is photographed by a headless Chromium. New weights change every picture: run it again then.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from tests.conftest import ROOT, SHARED
from tests.tools.browser import browser, wait_for

PICTURES: Final = ROOT / "examples" / "pictures"
CLIP: Final = "examples/clip.mp4"
LARGEST: Final = 400_000  # bytes of a picture
WIDTH: Final = 1000  # pixels of one that would be larger
# Name -> the command as the README shows it.
COMMANDS: Final = {
    "preview.jpg": f"a2n-video {CLIP} --preview OUT --overwrite --at 2 --crop 100x75+70+5 --models a2n-video,a2n-tiny",
    "attention.jpg": f"python -m a2n_video.tools.look attention {CLIP} -o OUT --at 2 --frames 24",
    "lam.png": f"python -m a2n_video.tools.look lam {CLIP} -o OUT --time 2 --at 120,40",
    "ablation.png": "python -m a2n_video.tools.look ablation SHARED/images/Set5 -o OUT",
}
FRAMES: Final = 24
MODELS: Final = ("a2n-video", "a2n-tiny")


def run(command: str) -> None:
    """One of the commands, with this Python."""
    words = [str(SHARED) + word.removeprefix("SHARED") if word.startswith("SHARED/") else word for word in shlex.split(command)]
    head = [sys.executable, "-m", "a2n_video"] if words[0] == "a2n-video" else [sys.executable, *words[1:3]]
    subprocess.run([*head, *words[1 if words[0] == "a2n-video" else 3 :]], cwd=ROOT, check=True)


def drawn(name: str) -> None:
    """A picture that one command draws, alone: tables and other pictures beside it are not the README's, but for the course."""
    with tempfile.TemporaryDirectory() as folder:
        run(COMMANDS[name].replace("OUT", shlex.quote(str(Path(folder) / name))))
        for made in Path(folder).iterdir():
            if made.suffix != ".csv":
                (PICTURES / made.name).write_bytes(fitted(made))


def fitted(picture: Path) -> bytes:
    """The file as it is, or, where a JPEG is too large for the README, made smaller to the width a page shows."""
    from PIL import Image

    data = picture.read_bytes()
    if len(data) <= LARGEST or picture.suffix != ".jpg":
        return data
    image = Image.open(picture)
    buffer = io.BytesIO()
    image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=85, optimize=True
    )
    return buffer.getvalue()


def compared(name: str) -> None:
    """The comparison page of two models, photographed with the line in the middle, means and the first curve below."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        halve(SHARED / "clips" / "scikit__bigbuckbunny.mp4", folder / "reference.mkv", folder / "small.mp4")
        for model in MODELS:
            run(f"a2n-video {folder}/small.mp4 {folder}/{model}.mp4 --model {model} --crf 12")
        results = " ".join(f"{folder}/{model}.mp4" for model in MODELS)
        run(f"python -m a2n_video.tools.compare {folder}/reference.mkv {results} --source {folder}/small.mp4 -o {folder}/report.html")
        (PICTURES / name).write_bytes(photographed(folder / "report.html", folder / "profile"))


def halve(clip: Path, reference: Path, small: Path) -> None:
    """The clip's first frames, as they are (lossless), and halved and compressed (libx264 crf 26)."""
    with av.open(str(clip)) as source, av.open(str(reference), "w") as large, av.open(str(small), "w") as half:
        outputs = []
        for output, codec, options, divisor in ((large, "ffv1", {}, 1), (half, "libx264", {"crf": "26"}, 2)):
            stream = output.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 1280 // divisor, 720 // divisor, "yuv420p"
            outputs.append((output, stream))
        for number, frame in zip(range(FRAMES), source.decode(video=0), strict=False):
            for output, stream in outputs:
                scaled = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
                scaled.pts, scaled.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(scaled))
        for output, stream in outputs:
            output.mux(stream.encode(None))


def photographed(page: Path, profile: Path) -> bytes:
    """A JPEG of the top of a page, in a window high enough for pictures, means and one curve."""
    from PIL import Image

    with browser(profile, size=(1200, 1500)) as chromium:
        chromium.open(page)
        wait_for(chromium, "return document.documentElement.dataset.ready === 'yes'")
        assert chromium.console() == []
        picture = Image.open(io.BytesIO(chromium.screenshot())).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, optimize=True)
    return buffer.getvalue()


MAKERS: Final[dict[str, Callable[[str], None]]] = {**dict.fromkeys(COMMANDS, drawn), "compare.jpg": compared}


def main(names: list[str]) -> None:
    for name in names or MAKERS:
        MAKERS[name](name)
        size = (PICTURES / name).stat().st_size
        print(f"{name}: {size:,} bytes")
        if size > LARGEST:
            raise SystemExit(f"{name} is larger than {LARGEST:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
