"""The card's benchmark runs where there is no card: its arguments, its sweep and its table, not its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_a_dry_run_prints_every_combination(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    figures = tmp_path / "figures.json"
    assert gpu.main(["--dry-run", "--full", "--sizes", "540p", "--batches", "1", "--json", str(figures)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert len(rows) == len({tuple(row[:5]) for row in rows}) == 2 * 4
    assert all(float(row[5]) > 0 and float(row[7]) > 0 for row in rows)
    assert all((row[-1] == "no graph, eager") == (row[3] == "on") for row in rows)
    assert len(json.loads(figures.read_text())["results"]) == len(rows)


def test_what_fails_is_noted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened = gpu.open_pipeline

    def refuse_two(backend, model, geometry, plan):  # type: ignore[no-untyped-def]
        if plan.batch_size == 2:
            raise torch.OutOfMemoryError("too large")
        return opened(backend, model, geometry, plan)

    monkeypatch.setattr(gpu, "open_pipeline", refuse_two)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    assert gpu.main(["--dry-run", "--sizes", "540p", "--layouts", "nhwc", "--batches", "2", "1"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert ["too large" in row[-1] for row in rows] == [True, False, False, False, False]


def test_shares_are_of_the_cards_limit_for_that_size() -> None:
    bench = gpu.make_bench(gpu.parse(["--dry-run"]))
    bench = gpu.replace(bench, card="NVIDIA H100 80GB HBM3", sizes=gpu.SIZES)
    assert bench._shares(gpu.Case(size="1080p", layout="nhwc", batch=1), 91.0)["compute"] == pytest.approx(0.5)
    assert bench._shares(gpu.Case(size="720p", layout="nhwc", batch=1), 91.0)["compute"] == pytest.approx(91 / 409.5)
    assert not gpu.replace(bench, card="Some card")._shares(gpu.Case(size="720p", layout="nhwc", batch=1), 91.0)


def test_there_is_no_card_without_one() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises((RuntimeError, AssertionError)):
        gpu.main(["--sizes", "540p"])
