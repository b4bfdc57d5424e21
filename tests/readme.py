"""The README's tables, made from the code that they describe: `python -m tests.readme` writes them anew, a test holds them equal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from a2n_video import errors
from a2n_video.cli_options import OPTIONS

README = Path(__file__).resolve().parent.parent / "README.md"


def options() -> str:
    """Every job option: flags, what it does."""
    rows = ["| | option | |", "|---|---|---|"]
    last = ""
    for group, flags, settings in OPTIONS:
        value = settings.get("metavar") or ("\\|".join(settings["choices"]) if "choices" in settings else "")
        if not value and settings.get("action") is None:
            value = {"int": "N", "float": "N"}.get(getattr(settings.get("type"), "__name__", ""), flags[-1].lstrip("-").upper())
        shown = ", ".join(f"`{flag}`" for flag in flags) + (f" {value}" if value else "")
        rows.append(f"| {group if group != last else ''} | {shown} | {settings['help']} |")
        last = group
    return "\n".join(rows)


def exit_codes() -> str:
    """Exit codes and the errors that have them."""
    meanings = {
        0: "complete, and verified",
        1: "a bug of ours",
        2: "usage: options, unknown codec, model or extension, an extra that is not installed",
        3: "the input cannot be used",
        4: "the source is damaged or incomplete; what could be made of it was kept, if anything, and if that much was to be borne",
        5: "the output: exists, equals the input, disk, permission, locked, journal of another job",
        6: "weights or device",
        7: "the result does not match its source; it is left under its temporary name (not with `--no-resume`, nor on pipes)",
        errors.BATCH_FAILED: "some files of a batch failed",
        errors.INTERRUPTED: "stopped by Ctrl-C",
        errors.TERMINATED: "stopped by SIGTERM",
    }
    known = set(errors.EXIT_CODES.values()) | {0, errors.BATCH_FAILED, errors.TERMINATED}
    assert known == set(meanings), known ^ set(meanings)
    return "\n".join(["| code | |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in sorted(meanings.items()))])


TABLES: dict[str, Callable[[], str]] = {"options": options, "exit codes": exit_codes}


def block(name: str, text: str) -> str | None:
    """What stands between a table's markers, None where there are none."""
    found = re.search(rf"<!-- {name} -->\n\n(.*?)\n\n<!-- /{name} -->", text, re.DOTALL)
    return found[1] if found else None


def rewritten(text: str) -> str:
    """The README with every table made anew."""
    for name, make in TABLES.items():
        old = block(name, text)
        if old is None:
            raise SystemExit(f"README.md has no block {name!r}")
        text = text.replace(f"<!-- {name} -->\n\n{old}\n\n<!-- /{name} -->", f"<!-- {name} -->\n\n{make()}\n\n<!-- /{name} -->")
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
    sys.exit(0)
