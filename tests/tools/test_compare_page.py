"""The comparison page in a headless Chromium: the line moves, zoom follows, nothing is fetched, no error is logged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from a2n_video.tools.footage import Footage
from a2n_video.tools.measuring import Cast, Comparison, Measurement, Still
from a2n_video.tools.page import Page, render
from tests.made import make_source
from tests.tools.browser import Browser, browser, finger, wait_for, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

TRANSFORMS = "return [...document.querySelectorAll('.layer img')].map(i => i.style.transform)"
BOX = "const b = document.getElementById('pair').getBoundingClientRect(); return [b.left, b.top, b.width, b.height].map(Math.round)"
NOW = "return +document.getElementById('handle').getAttribute('aria-valuenow')"
CLIP = "return document.querySelectorAll('#pair .layer')[1].style.clipPath"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    small = Footage.open(make_source(folder / "small.mp4", pts=range(6), audio=()))
    large = Footage.open(make_source(folder / "large.mp4", pts=range(6), size=(128, 96), audio=()))
    rows = [
        Measurement(frame=n, time=Fraction(n, 25), version=name, kept_db=30.0 + n + 3 * k, flicker=0.1 * n if n else None)
        for n in range(6)
        for k, name in enumerate(("bicubic", "<ours>"))
    ]
    rng = np.random.default_rng(1)
    stills = [
        Still(
            label=f"{n}.00 s",
            frame=n,
            time=Fraction(n, 25),
            pictures={
                "source": rng.integers(0, 255, (48, 64, 3), np.uint8),
                "bicubic": rng.integers(0, 255, (96, 128, 3), np.uint8),
                "<ours>": rng.integers(0, 255, (96, 128, 3), np.uint8),
            },
        )
        for n in (0, 4)
    ]
    cast = Cast(base=small, base_name="source", results={"<ours>": large}, small=small)
    comparison = Comparison(cast=cast, rows=rows, stills=stills, frames=6)
    hostile = "</script><script>alert(1)</script>"
    path = folder / "report.html"
    path.write_text(
        render(Page(title=hostile, comparison=comparison, notes=[hostile], jobs=[(hostile, "verified: 6 frames")], quality=100))
    )
    return path


@pytest.fixture
def page(chromium: Browser, report: Path) -> Iterator[Browser]:
    """The page, fresh; after the test nothing may stand in the console."""
    chromium.open(report)
    wait_for(chromium, "return document.documentElement.dataset.ready === 'yes'")
    yield chromium
    assert chromium.console() == []


def test_the_line_follows_mouse_touch_and_keyboard(page: Browser) -> None:
    left, top, width, height = page.run(BOX)
    middle = top + height // 2
    assert page.run(NOW) == 50
    page.drag((left + width // 2, middle), (left + width // 4, middle))
    assert page.run(NOW) == pytest.approx(25, abs=1)
    assert page.run(CLIP).replace("25.", "25").startswith("inset(0px 0px 0px 25") or page.run(CLIP).startswith("inset(0px 0px 0px 24")
    page.drag((left + width // 4, middle), (left + 3 * width // 4, middle), "touch")
    assert page.run(NOW) == pytest.approx(75, abs=1)
    page.run("document.getElementById('handle').focus()")
    page.keys("\ue012", "\ue012")  # left, left
    assert page.run(NOW) == pytest.approx(73, abs=1)
    page.keys("\ue011")  # Home
    assert page.run(NOW) == 0
    page.keys("\ue010")  # End
    assert page.run(NOW) == 100


def test_every_picture_follows_the_zoom(page: Browser) -> None:
    left, top, width, height = page.run(BOX)
    before = set(page.run(TRANSFORMS))
    assert before == {"scale(1) translate(0%, 0%)"} or len(before) == 1
    page.wheel((left + width // 4, top + height // 4), -400)
    zoomed = page.run(TRANSFORMS)
    assert len(zoomed) == 5  # two layers of the slider, three tiles
    assert len(set(zoomed)) == 1
    assert set(zoomed) != before
    # The pixel under the pointer stays there: x = (1/4)(1 - 1/zoom) of the picture lies at the left edge.
    zoom, offset = (float(text.split(")")[0].rstrip("%").split("%")[0]) for text in (zoomed[0][6:], zoomed[0].split("translate(")[1]))
    assert zoom == pytest.approx(np.e, rel=0.01)
    assert -offset / 100 == pytest.approx(0.25 * (1 - 1 / zoom), abs=0.01)
    page.run("document.getElementById('all').click()")
    tile = page.run(
        "const b = document.querySelector('#tiles .view').getBoundingClientRect(); return [b.left, b.top, b.width].map(Math.round)"
    )
    page.drag((tile[0] + tile[2] // 2, tile[1] + 40), (tile[0] + tile[2] // 4, tile[1] + 40))
    panned = page.run(TRANSFORMS)
    assert len(set(panned)) == 1
    assert panned[0] != zoomed[0]
    page.keys("0")
    assert set(page.run(TRANSFORMS)) == before


def test_two_fingers_zoom(page: Browser) -> None:
    left, top, width, height = page.run(BOX)
    x, y = left + width // 2, top + height // 2
    page.act(finger("a", [(x - 40, y), (x - 120, y)]), finger("b", [(x + 40, y), (x + 120, y)]))
    transform = page.run(TRANSFORMS)[0]
    assert float(transform[6:].split(")")[0]) == pytest.approx(3, rel=0.25)


def test_frames_and_versions_change(page: Browser) -> None:
    sources = "return [...document.querySelectorAll('#pair .layer img')].map(i => i.src)"
    data = json.loads(page.run("return document.getElementById('data').textContent"))
    assert page.run(sources) == [data["stills"][0]["pictures"][name] for name in ("bicubic", "<ours>")]
    page.keys("]")
    assert page.run(sources) == [data["stills"][1]["pictures"][name] for name in ("bicubic", "<ours>")]
    page.run("const s = document.getElementById('left'); s.value = 'source'; s.onchange({target: s})")
    assert page.run(sources)[0] == data["stills"][1]["pictures"]["source"]
    assert page.run("return [...document.querySelectorAll('.layer img')].every(i => i.complete && i.naturalWidth > 0)")


def test_curves_and_tables_are_drawn(page: Browser) -> None:
    assert page.run("return document.querySelectorAll('#charts svg polyline').length") == 4  # two measures of two versions
    points = page.run("return document.querySelector('#charts polyline').getAttribute('points').split(' ').length")
    assert points == 6
    means = page.run("return document.getElementById('means').textContent")
    assert "Kept source, dB" in means
    assert "32.50" in means
    assert "verified: 6 frames" in page.run("return document.getElementById('jobs').textContent")
    assert "</script>" in page.run("return document.getElementById('notes').textContent")  # shown, not run


def test_nothing_is_fetched(page: Browser) -> None:
    fetched = page.run("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))")
    assert fetched == []
