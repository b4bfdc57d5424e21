"""The comparison as one HTML file: pictures, numbers and script inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from typing import Any, Final

from a2n_video.io.rgb import Image
from a2n_video.tools.footage import Footage
from a2n_video.tools.images import display_size, jpeg_bytes, png_bytes
from a2n_video.tools.measuring import Comparison, Measurement, Still, mean_of

# Field of a Measurement, title, unit, digits shown, what it says.
MEASURES: Final = (
    ("psnr_db", "PSNR", "dB", 2, "on luma against the reference; higher is nearer"),
    ("ssim", "SSIM", "", 4, "on luma against the reference; 1 is equal"),
    ("vmaf", "VMAF", "", 1, "0 to 100; higher is nearer"),
    ("kept_db", "Kept source", "dB", 2, "PSNR of the result shrunk back against the source; low where the result invents or shifts"),
    ("flicker", "Flicker", "8-bit steps", 3, "change since the frame before, less the first file's own; above 0 is more restless"),
)
PNG_QUALITY: Final = 100


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows. `jobs` are (name, text) of what runs left behind; `quality` is JPEG's, 100 stands for PNG."""

    title: str
    comparison: Comparison
    notes: list[str]
    jobs: list[tuple[str, str]]
    quality: int = 92


def render(page: Page) -> str:
    """The page as text. All that comes from files is escaped: as HTML in the title, as JSON without `<` in the data."""
    template = resources.files("a2n_video.tools").joinpath("compare.html").read_text("utf-8")
    data = json.dumps(page_data(page), allow_nan=False).replace("<", "\\u003c")
    return template.replace("{{title}}", html.escape(page.title)).replace("{{data}}", data)


def page_data(page: Page) -> dict[str, Any]:
    """Everything the page's script draws from."""
    cast, rows = page.comparison.cast, page.comparison.rows
    first = next(iter(cast.results.values()))
    width, height = display_size(cast.width, cast.height, first.info.sar)
    if first.shown.swapped:
        width, height = height, width
    versions = cast.versions
    files = {cast.base_name: cast.base, **({"source": cast.small} if cast.small else {}), **cast.results}
    return {
        "title": page.title,
        "width": width,
        "height": height,
        "base": cast.base_name,
        "versions": versions,
        "first": [cast.base_name if cast.has_reference and cast.small is None else versions[0], next(iter(cast.results))],
        "times": [_short(float(row.time)) for row in rows if row.version == versions[0]],
        "measures": _measures(rows, versions),
        "stills": [_still(still, page.quality) for still in page.comparison.stills],
        "files": [[name, *facts(footage)] for name, footage in files.items()],
        "notes": page.notes,
        "jobs": page.jobs,
    }


def _measures(rows: list[Measurement], versions: Sequence[str]) -> list[dict[str, Any]]:
    """Every measure that was taken of some frame: what it is, its mean and its course by version."""
    return [
        {
            "name": title,
            "unit": unit,
            "digits": digits,
            "text": text,
            "means": {version: mean_of(rows, version, name) for version in versions},
            "values": {version: [_short(getattr(row, name)) for row in rows if row.version == version] for version in versions},
        }
        for name, title, unit, digits, text in MEASURES
        if any(getattr(row, name) is not None for row in rows)
    ]


def _still(still: Still, quality: int) -> dict[str, Any]:
    pictures = {name: data_uri(picture, quality) for name, picture in still.pictures.items()}
    return {"label": still.label, "frame": still.frame, "pictures": pictures}


def facts(footage: Footage) -> list[str]:
    """File name, and what it holds, for the table of files."""
    info = footage.info
    rate = f", {8 * info.size_bytes / float(footage.seconds) / 1e6:.2f} Mbit/s" if footage.seconds else ""
    sar = "" if info.sar == Fraction(1) else f", SAR {info.sar}"
    what = f"{info.video.codec} {info.width}x{info.height} {info.pix_fmt}{sar}"
    return [info.path.name, f"{what}, about {footage.time_map.frames} frames, {float(footage.seconds):.2f} s{rate}"]


def data_uri(image: Image, quality: int) -> str:
    """A picture as a data URI: JPEG without chroma subsampling, or PNG."""
    kind, data = ("png", png_bytes(image)) if quality >= PNG_QUALITY else ("jpeg", jpeg_bytes(image, quality))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
