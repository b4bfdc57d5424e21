"""The loop learns, goes on bit for bit from a checkpoint, and keeps its best averaged weights in a file the product loads."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from a2n_video.errors import OptionError, WeightsError
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.net.weights import load_model, save_model
from a2n_video.tools.metrics import BEST_DB
from a2n_video.training.__main__ import main, parse, taken
from a2n_video.training.data import HELD_KINDS, DataConfig
from a2n_video.training.held import HeldOut
from a2n_video.training.optimiser import FusedAdam, set_learning_rate
from a2n_video.training.train import Run, TrainConfig, Trainer, learning_rate, psnr, train

TINY = TrainConfig(
    n_features=8, n_blocks=1, head="pixelshuffle", steps=12, batch=2, side=12, eval_every=4, warm_up=3, threads=1, learning_rate=2e-3
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of smooth noise and its average over 2x2, in the layout of `training data`."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(1)
    for split, kinds in (("train", [0] * 6 + [1] * 6), ("held", [0, 1, 2, 3])):
        high = rng.integers(0, 255, (len(kinds), 16, 16, 3)).repeat(3, 1).repeat(3, 2)[:, :32, :32].astype(np.uint8)
        low = high.reshape(len(kinds), 16, 2, 16, 2, 3).mean((2, 4)).astype(np.uint8)
        for name, array in (("low", low), ("high", high), ("kind", np.array(kinds, np.uint8))):
            np.save(folder / f"{split}_{name}.npy", array)
    (folder / "pairs.json").write_text(json.dumps({"config": asdict(DataConfig())}))
    return folder


def same(a: Trainer, b: Trainer) -> bool:
    tensors = [(trainer.model.state_dict(), trainer.average.state_dict()) for trainer in (a, b)]
    return all(torch.equal(x, y) for one, two in zip(*tensors, strict=True) for x, y in zip(one.values(), two.values(), strict=True))


@pytest.mark.parametrize("amp", [False, True])
def test_a_resumed_run_is_bit_equal(pairs: Path, tmp_path: Path, amp: bool) -> None:
    config = TrainConfig(**{**TINY.__dict__, "amp": amp})
    whole = train([pairs], tmp_path / "whole", config)
    part = train([pairs], tmp_path / "parts", config, stop_at=5)
    assert (part.step, whole.step) == (5, 12) and not same(part, whole)
    resumed = train([pairs], tmp_path / "parts", config)
    assert resumed.step == 12 and same(resumed, whole)


def test_a_stop_ends_after_a_whole_step_and_goes_on_bit_for_bit(pairs: Path, tmp_path: Path) -> None:
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) == 2

    part = train([pairs], tmp_path / "parts", TINY, stopped=stopped)
    assert part.step == 2 and not (tmp_path / "parts" / "curve.csv").exists()
    assert same(train([pairs], tmp_path / "parts", TINY), train([pairs], tmp_path / "whole", TINY))


def test_sigterm_is_such_a_stop(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.train_step

    def with_signal(trainer: Trainer, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, low, high)

    monkeypatch.setattr(Trainer, "train_step", with_signal)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    shape = [
        "--n-features",
        "8",
        "--n-blocks",
        "1",
        "--head",
        "pixelshuffle",
        "--steps",
        "9",
        "--batch",
        "2",
        "--side",
        "12",
        "--threads",
        "1",
    ]
    try:
        main(["train", str(pairs), str(tmp_path / "run"), *shape])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 1


def test_any_number_of_workers_reads_the_same_batches(pairs: Path, tmp_path: Path) -> None:
    alone = train([pairs], tmp_path / "a", TINY, stop_at=3)
    helped = train([pairs], tmp_path / "b", TrainConfig(**{**TINY.__dict__, "workers": 2}), stop_at=3)
    assert same(alone, helped)


def test_a_stop_that_reaches_the_workers_too_takes_none_of_them(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does: a terminal sends it to all processes of a group."""
    step, asked = Trainer.train_step, [False, False, True]

    def with_signal(trainer: Trainer, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGINT if trainer.step else signal.SIGTERM)
        time.sleep(0.2)
        return step(trainer, low, high)

    monkeypatch.setattr(Trainer, "train_step", with_signal)
    train([pairs], tmp_path, replace(TINY, workers=1), stopped=lambda: asked.pop(0))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert not multiprocessing.active_children()


def test_it_learns(pairs: Path) -> None:
    trainer = Trainer(TrainConfig(**{**TINY.__dict__, "steps": 60, "amp": False}), 2, torch.device("cpu"))
    low, high = (torch.from_numpy(np.load(pairs / f"train_{name}.npy")).permute(0, 3, 1, 2) for name in ("low", "high"))
    losses = [trainer.train_step(low, high) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_average_follows_slowly() -> None:
    trainer = Trainer(TINY, 2, torch.device("cpu"))
    start = trainer.average.conv_first.weight.clone()
    trainer.model.conv_first.weight.data.add_(1)
    trainer.step = 10**6
    trainer.update_average()
    assert torch.allclose(trainer.average.conv_first.weight - start, torch.full_like(start, 1 - TINY.ema), atol=1e-5)


def test_the_schedule() -> None:
    config = TrainConfig(steps=1000, warm_up=100, learning_rate=1.0, final_learning_rate=0.01)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == 0.01 and rates[99] == 1.0 == max(rates)
    assert rates[550] == pytest.approx(0.505)
    assert rates[1000] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(rates[100:]))


def test_the_schedule_ends_by_the_clock_where_that_is_first() -> None:
    config = TrainConfig(steps=1000, warm_up=100, learning_rate=1.0, final_learning_rate=0.01, minutes=2)
    assert [learning_rate(config, 200, seconds) for seconds in (60, 120, 500)] == pytest.approx([0.505, 0.01, 0.01])
    assert learning_rate(config, 550, 12) == pytest.approx(0.505)
    assert learning_rate(config, 99, 60) == 1.0


def test_a_run_by_the_clock_stops_is_judged_and_stays_ended(pairs: Path, tmp_path: Path) -> None:
    config = TrainConfig(**{**TINY.__dict__, "steps": 10**6, "eval_every": 10**6, "minutes": 0.01})
    trainer = train([pairs], tmp_path, config)
    assert 0 < trainer.step < 10**6 and 0.6 <= trainer.seconds < 30
    assert [row["step"] for row in csv.DictReader((tmp_path / "curve.csv").open())] == [str(trainer.step)]
    assert train([pairs], tmp_path, config).step == trainer.step


def test_a_machine_that_goes_while_the_end_is_judged_takes_no_step_along(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("a2n_video.training.train.evaluate", gone)
    with pytest.raises(ConnectionError):
        train([pairs], tmp_path, replace(TINY, eval_every=100))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == TINY.steps


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(pairs: Path, tmp_path: Path) -> None:
    plain, compiled = (
        train([pairs], tmp_path / str(on), TrainConfig(**{**TINY.__dict__, "compile": on}), stop_at=3) for on in (False, True)
    )
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(value, compiled.model.state_dict()[name], atol=5e-3)
    load_model(tmp_path / "True" / "best.safetensors", 2)


def test_what_a_run_leaves(pairs: Path, tmp_path: Path) -> None:
    trainer = train([pairs], tmp_path, TINY)
    model = load_model(tmp_path / "best.safetensors", 2)
    assert model.config == trainer.average.config
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert {"loss", "score", *(name for name, _ in HELD_KINDS)} <= set(rows[0])
    assert all(time.time() - 600 < int(row["time"]) <= time.time() + 1 for row in rows)
    assert max(float(row["score"]) for row in rows) == pytest.approx(trainer.best, abs=1e-3)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 12
    assert not list(tmp_path.glob("*.part"))


def steps_of_curve(folder: Path) -> list[str]:
    return [row["step"] for row in csv.DictReader((folder / "curve.csv").open())]


@pytest.mark.parametrize("saved", [False, True])
def test_what_was_judged_after_the_last_save_is_judged_once(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    if saved:
        train([pairs], tmp_path, TINY, stop_at=5)

    def killed(run: Run) -> None:
        if run.trainer.step == 10:
            raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(Run, "save_if_due", killed)
        train([pairs], tmp_path, TINY)
    early = ["4", "5"] if saved else ["4"]
    assert steps_of_curve(tmp_path) == [*early, "8"]
    with (tmp_path / "curve.csv").open("a") as file:
        file.write("1")  # as much as the kill let through of the next line
    train([pairs], tmp_path, TINY)
    assert steps_of_curve(tmp_path) == [*early, "8", "12"]
    assert not list(tmp_path.glob("*.part"))


def test_only_better_weights_replace_the_best(pairs: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, Trainer(TINY, 2, torch.device("cpu")))
    run.save_best(1.0)
    kept = (tmp_path / "best.safetensors").read_bytes()
    run.trainer.average.conv_first.weight.add_(1)
    run.save_best(0.9)
    run.save_best(math.nan)
    assert (tmp_path / "best.safetensors").read_bytes() == kept
    run.save_best(1.1)
    assert (tmp_path / "best.safetensors").read_bytes() != kept


def test_a_warm_start_takes_the_trunk_of_another_scale(tmp_path: Path) -> None:
    path = tmp_path / "x2.safetensors"
    source = A2N(A2NConfig(n_features=8, n_blocks=1, head="pixelshuffle"))
    save_model(source, path)
    trainer = Trainer(TINY, 4, torch.device("cpu"))
    assert trainer.warm_start(load_model(path).state_dict()) == ["conv_last.bias", "conv_last.weight"]
    for network in (trainer.model, trainer.average):
        assert torch.equal(network.trunk_conv.weight, source.trunk_conv.weight)


def test_a_checkpoint_of_another_network_is_refused(pairs: Path, tmp_path: Path) -> None:
    train([pairs], tmp_path, TINY, stop_at=1)
    with pytest.raises(WeightsError, match="another network"):
        train([pairs], tmp_path, TrainConfig(**{**TINY.__dict__, "n_blocks": 2}))


def test_a_run_that_goes_on_with_other_options_says_so(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([pairs], tmp_path, TINY, stop_at=1)
    train([pairs], tmp_path, replace(TINY, eval_every=5), stop_at=2)
    assert "goes on" not in capsys.readouterr().out
    other = replace(TINY, seed=2, loss="psnr")
    (tmp_path / "config.json").write_text("{")  # cut by a kill
    train([pairs], tmp_path, other, stop_at=2)
    train([pairs], tmp_path, other, stop_at=3)
    told = capsys.readouterr().out
    assert told.count("goes on from step 2 with --loss psnr instead of l1, --seed 2 instead of 1\n") == told.count("goes on") == 1
    kept = json.loads((tmp_path / "config.json").read_text())
    assert (kept["seed"], kept["changed"]) == (2, [{"step": 2, "loss": ["l1", "psnr"], "seed": [1, 2]}])


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("other", [{"clean_share": 1.0}, {"optimiser": "muon"}])
def test_what_a_checkpoint_cannot_go_on_with_is_refused(pairs: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    wide = replace(TINY, n_features=16)
    train([pairs], tmp_path, wide, stop_at=1)
    kept = (tmp_path / "config.json").read_bytes()
    with pytest.raises(OptionError, match=r"this run was begun with --.*, it cannot go on"):
        train([pairs], tmp_path, replace(wide, **other))
    assert (tmp_path / "config.json").read_bytes() == kept


def test_a_stop_at_step_0_takes_none(pairs: Path, tmp_path: Path) -> None:
    assert train([pairs], tmp_path, TINY, stop_at=0).step == 0


def test_held_out_gains_are_over_bicubic(pairs: Path) -> None:
    held = HeldOut(pairs)

    class Perfect(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return held.high[[row for small in x for row in range(4) if torch.equal(held.low[row], (255 * small).byte())]].float() / 255

    gains = held.gains(Perfect(), torch.device("cpu"), amp=False)
    expected = (BEST_DB - held.bicubic).tolist()
    assert list(gains.values()) == pytest.approx(expected)
    only = HeldOut(pairs, clean_only=True)
    assert only.gains(Perfect(), torch.device("cpu"), amp=False) == pytest.approx({"clean": gains["clean"]})
    assert only.score({"clean": 4.0}, 1.0) == 4.0
    assert held.score({"clean": 4.0, "crf23": 1.0, "crf28": 2.0, "crf33": 3.0}, 0.25) == pytest.approx(0.25 * 4 + 0.75 * 2)


def test_the_command_line(pairs: Path, tmp_path: Path) -> None:
    args = parse(["train", str(pairs), str(tmp_path), "--learning-rate", "1e-3", "--no-amp"])
    assert (args.learning_rate, args.amp, args.n_blocks) == (1e-3, False, TrainConfig.n_blocks)
    for given, frame in ((["--frame", "72", "96"], (72, 96)), ([], DataConfig.frame)):
        assert DataConfig(**taken(parse(["data", "in", "out", "--patch", "72", *given]), DataConfig)).frame == frame
    shape = ["--n-features", "8", "--n-blocks", "1", "--head", "pixelshuffle"]
    shape += ["--side", "12", "--batch", "1", "--threads", "1"]
    assert main(["train", str(pairs), str(tmp_path / "run"), *shape, "--steps", "2", "--eval-every", "2"]) == 0
    assert (tmp_path / "run" / "best.safetensors").is_file()
    with pytest.raises(SystemExit):
        parse(["train", str(pairs)])


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["train", "{here}/none", "{here}/run"], 3, "pairs.json is missing"),
        (["train", "{pairs}", "{here}/run", "--loss", "l3", "--side", "12", "--threads", "1"], 2, "there are l1, psnr"),
        (["data", "{here}/none", "{here}/out"], 3, "no such folder"),
        (["data", "{here}", "{here}/out"], 3, "no picture or video"),
        (["data", "{here}", "{here}/out", "--patch", "400"], 2, "do not fit"),
    ],
)
def test_bad_use_is_one_line_and_a_code(
    given: list[str], code: int, told: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main([text.format(here=tmp_path, pairs=pairs) for text in given]) == code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    error = capsys.readouterr().err
    assert error.startswith("python -m a2n_video.training: ") and told in error and error.count("\n") == 1


def test_the_psnr_loss_is_the_figure_in_db_and_weighs_patches_alike() -> None:
    quiet, busy = torch.full((1, 3, 8, 8), 0.04), torch.full((1, 3, 8, 8), 0.4)
    zero = torch.zeros(2, 3, 8, 8)
    losses = [psnr(torch.cat(pair), zero) for pair in ((quiet, busy), (quiet / 2, busy), (quiet, busy / 2))]
    halved = [float(losses[0] - loss) for loss in losses[1:]]
    assert halved[0] == pytest.approx(halved[1], rel=0.02) and halved[0] == pytest.approx(math.log(4) / 2, rel=0.02)
    assert not torch.isinf(psnr(zero, zero))


def test_both_losses_learn_and_others_are_refused(pairs: Path, tmp_path: Path) -> None:
    trained = train([pairs], tmp_path / "run", TrainConfig(**{**TINY.__dict__, "loss": "psnr"}), stop_at=4)
    assert trained.step == 4
    with pytest.raises(OptionError, match="l1, psnr"):
        Trainer(TrainConfig(**{**TINY.__dict__, "loss": "l3"}), 2, torch.device("cpu"))
    with pytest.raises(OptionError, match="adam"):
        Trainer(TrainConfig(**{**TINY.__dict__, "optimiser": "sgd"}), 2, torch.device("cpu"))


@pytest.mark.parametrize(("wrong", "told"), [({"head": "pixelshuffel"}, "head is paper or pixelshuffle"), ({"n_blocks": 0}, "1 or more")])
def test_a_network_that_there_is_not_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Trainer(replace(TINY, **wrong), 2, torch.device("cpu"))


def test_a_state_of_adam_from_a_card_goes_on_here() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    here = FusedAdam([weight], 0.1)
    weight.grad = torch.ones(4)
    here.step()
    state = here.state_dict()
    state["param_groups"][0].update(lr=torch.tensor(0.5), capturable=True)
    again = FusedAdam([weight], 0.1)
    again.load_state_dict(state)
    set_learning_rate(again, 0.25)
    assert (again.param_groups[0]["lr"], again.param_groups[0]["capturable"]) == (0.25, False)
    again.step()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_of_a_network_without_matrices_is_refused() -> None:
    with pytest.raises(OptionError, match="--optimiser muon: no kernel"):
        Trainer(replace(TINY, optimiser="muon"), 2, torch.device("cpu"))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_a_run_with_muon_goes_on_bit_for_bit(pairs: Path, tmp_path: Path) -> None:
    config = TrainConfig(**{**TINY.__dict__, "optimiser": "muon", "n_features": 16})
    whole = train([pairs], tmp_path / "whole", config)
    train([pairs], tmp_path / "parts", config, stop_at=5)
    assert same(whole, train([pairs], tmp_path / "parts", config))
