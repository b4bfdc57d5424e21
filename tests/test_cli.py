"""What the command line says, and with which exit code, beside the jobs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from a2n_video import cli
from a2n_video.errors import INTERRUPTED
from tests.made import make_source


def test_a_traceback_changes_no_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path / "none.mkv"), str(tmp_path / "out.mkv")]
    assert cli.main(command) == 3
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1
    assert cli.main([*command, "-v"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told and told.endswith(plain)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.mkv", "out.mkv"], "the same command goes on from here"),
        (["in.mkv", "--output-dir", "out"], "the same command goes on from here"),
        (["in.mkv", "out.mkv", "--no-resume"], "the same command begins anew"),
        (["in.mkv", "out.y4m"], "the same command begins anew"),
        (["in.mkv", "--preview", "look.png"], "the same command begins anew"),
    ],
)
def test_a_stop_says_what_the_same_command_will_do(
    arguments: Sequence[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    make_source(tmp_path / "in.mkv", pts=range(2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_dispatch", stopped)
    assert cli.main(arguments) == INTERRUPTED
    assert capsys.readouterr().err == f"a2n-video: stopped; {words}\n"
