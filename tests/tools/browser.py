"""A headless Chromium driven through chromedriver's HTTP interface (the W3C WebDriver protocol), with the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")


def why_not() -> str | None:
    """Why no browser can be driven here; None where one can."""
    missing = [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
    return f"{' and '.join(missing)} not installed (Debian: chromium, chromium-driver)" if missing else None


class Browser:
    """One session of the browser."""

    def __init__(self, url: str, session: str) -> None:
        self.base = f"{url}/session/{session}"

    def run(self, script: str) -> Any:
        """The value of a script's `return`."""
        return call(f"{self.base}/execute/sync", {"script": script, "args": []})

    def open(self, path: Path) -> None:
        call(f"{self.base}/url", {"url": path.resolve().as_uri()})

    def screenshot(self) -> bytes:
        return base64.b64decode(call(f"{self.base}/screenshot"))

    def console(self) -> list[dict[str, Any]]:
        """What the page logged since the last call, errors of the browser included."""
        return list(call(f"{self.base}/se/log", {"type": "browser"}))

    def act(self, *sources: dict[str, Any]) -> None:
        call(f"{self.base}/actions", {"actions": list(sources)})
        call(f"{self.base}/actions", method="DELETE")

    def drag(self, start: tuple[int, int], end: tuple[int, int], kind: str = "mouse") -> None:
        self.act(finger(f"{kind}1", [start, end], kind))

    def wheel(self, at: tuple[int, int], delta: int) -> None:
        scroll = {"type": "scroll", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": delta, "duration": 0, "origin": "viewport"}
        self.act({"type": "wheel", "id": "wheel", "actions": [scroll]})

    def keys(self, *keys: str) -> None:
        presses = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.act({"type": "key", "id": "keyboard", "actions": presses})


def finger(name: str, path: list[tuple[int, int]], kind: str = "touch") -> dict[str, Any]:
    """A pointer that goes down at the first place, moves along the others and goes up."""
    moves = [{"type": "pointerMove", "duration": 30, "x": x, "y": y, "origin": "viewport"} for x, y in path]
    down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
    return {"type": "pointer", "id": name, "parameters": {"pointerType": kind}, "actions": [moves[0], down, *moves[1:], up]}


def call(url: str, data: dict[str, Any] | None = None, method: str | None = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method or ("GET" if body is None else "POST"))
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as reply:
            return json.load(reply)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.read().decode()[:500]}") from error


@contextmanager
def browser(profile: Path, size: tuple[int, int] = (1200, 1000)) -> Iterator[Browser]:
    """A browser with a fresh profile; it and its driver end with the `with`."""
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        url = f"http://127.0.0.1:{line.split('port')[-1].strip().rstrip('.')}"
        wanted = {
            "goog:chromeOptions": {
                "binary": CHROMIUM,
                "args": [*FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"],
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = call(f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Browser(url, session)
        finally:
            call(f"{url}/session/{session}", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(30)


def wait_for(page: Browser, script: str, seconds: float = 20) -> None:
    """Until a script returns something true."""
    end = time.monotonic() + seconds
    while not page.run(script):
        assert time.monotonic() < end, f"never came: {script}"
        time.sleep(0.05)
