"""The training loop: one network, a loss and an optimiser by name, warm-up and cosine, an averaged copy, exact resume."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from a2n_video.errors import OptionError, WeightsError
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.net.weights import load_model, save_model
from a2n_video.tools.results import write_file
from a2n_video.training.data import PairBatches
from a2n_video.training.held import HeldOut
from a2n_video.training.optimiser import OPTIMISERS, set_learning_rate
from a2n_video.training.replay import Compute, GraphedStep


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run. `clean_share` of the patches are clean, the others compressed; sides and batches are of small patches."""

    n_features: int = 40
    n_blocks: int = 16
    head: str = "paper"
    steps: int = 40_000
    batch: int = 8
    side: int = 48
    clean_share: float = 0.35
    recoloured: float = 0.0  # share of clean patches whose channels change places, where pictures are few
    loss: str = "l1"  # a name in LOSSES
    optimiser: str = "adam"  # a name in OPTIMISERS
    learning_rate: float = 5e-4
    final_learning_rate: float = 2e-6
    warm_up: int = 200  # steps
    ema: float = 0.999
    clip: float = 1.0  # norm of the gradient
    seed: int = 1
    amp: bool = True  # bfloat16 autocast
    eval_every: int = 1000  # steps
    save_every: float = 600.0  # seconds
    minutes: float = 0.0  # of a lent machine: the schedule ends by the clock where that is before `steps`; 0 sets no clock
    compile: bool = False  # the blocks, by torch.compile: seconds at the start for a quicker step on a card
    graph: bool = True  # on a card the whole step is one CUDA graph, with Adam
    threads: int = 2
    workers: int = 0  # processes that read batches


# What a run that goes on may do in another way without a word: nothing that is learnt hangs on it.
_UNTOLD: Final = frozenset({"eval_every", "save_every", "compile", "graph", "threads", "workers"})


def changes(was: Mapping[str, Any], config: TrainConfig, folder: Path) -> dict[str, tuple[Any, Any]]:
    """What a run that goes on does otherwise than it did: names of options, each with its value before and now.

    OptionError where that cannot be: another optimiser knows nothing of the first one's state, and held-out pairs are of other kinds.
    """
    before = {**asdict(TrainConfig()), **was}
    now = asdict(config)
    changed = {name: (before[name], now[name]) for name in now if name not in _UNTOLD and before[name] != now[name]}
    for name in changed:
        if name == "optimiser" or (name == "clean_share" and 1 in changed[name]):
            old, new = (f"--{name.replace('_', '-')} {value}" for value in changed[name])
            raise OptionError(f"{folder}: this run was begun with {old}, it cannot go on with {new}; give --start in a new folder")
    return changed


def l1(out: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, the paper's loss."""
    return (out - target).abs().mean()


def psnr(out: Tensor, target: Tensor) -> Tensor:
    """Mean over patches of the logarithm of luma's and of RGB's mean squared error: what figures in dB are means of.

    A patch counts by how much of its error goes, not by how large that was, so quiet ones count as much as busy ones. Errors far below
    one code of 8 bits are let be.
    """
    difference = out - target
    red, green, blue = (weight * difference[:, i : i + 1] for i, weight in enumerate(LUMA))
    luma = red + green + blue  # numbers, not a tensor from the host, which a CUDA graph cannot hold
    errors = [part.square().mean(dim=(1, 2, 3)) + (0.25 / 255) ** 2 for part in (luma, difference)]
    return torch.cat(errors).log().mean()


LUMA: Final = (0.2568, 0.5041, 0.0979)  # of BT.601 in limited range, as PSNR on Y is taken
LOSSES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {"l1": l1, "psnr": psnr}


def named[T](table: dict[str, T], option: str, name: str) -> T:
    """The entry of an option's table. OptionError, which says what there is, for a name that is not in it."""
    if name not in table:
        raise OptionError(f"--{option} {name}: there are {', '.join(table)}")
    return table[name]


def learning_rate(config: TrainConfig, step: int, seconds: float = 0.0) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` at the last step, or when `seconds` reach `config.minutes`."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    t = max((step - config.warm_up) / max(1, config.steps - config.warm_up), time_share(config, seconds))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * (1 + math.cos(math.pi * min(1.0, t))) / 2


def time_share(config: TrainConfig, seconds: float) -> float:
    """How much of `config.minutes` is over, 1 or more when they are; 0 without a clock."""
    return seconds / (60 * config.minutes) if config.minutes else 0.0


def shape_of(config: TrainConfig, scale: int) -> A2NConfig:
    """The network of a run. OptionError for one that there is not."""
    head: Any = config.head
    try:
        return A2NConfig(scale=scale, n_features=config.n_features, n_blocks=config.n_blocks, head=head)
    except ValueError as error:
        raise OptionError(f"--n-features {config.n_features} --n-blocks {config.n_blocks} --head {head}: {error}") from error


class Trainer:
    """The state of a run and its step. What `state` gives and `load_state` takes is all that decides what follows."""

    def __init__(self, config: TrainConfig, scale: int, device: torch.device) -> None:
        self.loss, optimiser = named(LOSSES, "loss", config.loss), named(OPTIMISERS, "optimiser", config.optimiser)
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        shape = shape_of(config, scale)
        self.model = A2N(shape).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = A2N(shape).to(device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
        self.average.load_state_dict(self.model.state_dict())
        if config.compile:
            for block in self.model.AAB_trunk:
                block.compile(dynamic=False)
        self.optimiser = optimiser(self.model.parameters(), config.learning_rate)
        self.compute: Compute = self.computed
        if device.type == "cuda" and config.graph and config.optimiser == "adam":
            self.compute = GraphedStep(self.computed, device)
        self.step = 0
        self.seconds = 0.0  # that the steps took
        self.best = -math.inf

    def warm_start(self, weights: dict[str, Tensor]) -> list[str]:
        """Take every tensor that fits by name and shape; gives the names of those that stayed new."""
        own = self.model.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        self.model.load_state_dict({**own, **fitting})
        self.average.load_state_dict(self.model.state_dict())
        return sorted(set(own) - set(fitting))

    def train_step(self, low: Tensor, high: Tensor) -> Tensor:
        """One step on uint8 NCHW patches; their mean absolute error before it, in 8-bit steps, whatever the loss.

        The error is a scalar on the trainer's device that nobody has waited for, so that a card always has its next step.
        """
        set_learning_rate(self.optimiser, learning_rate(self.config, self.step, self.seconds))
        error = self.compute(low, high)
        self.step += 1
        self.update_average()
        return error

    def computed(self, low: Tensor, high: Tensor) -> Tensor:
        """The step's arithmetic, which asks the device for nothing."""
        x, y = (t.to(self.device, non_blocking=True).float() / 255 for t in (low, high))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            out = self.model(x)
        loss = self.loss(out.float(), y)
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        return 255 * l1(out.detach().float(), y)

    @torch.no_grad()
    def update_average(self) -> None:
        """Exponential moving average of the weights, quicker at first so that the random start is forgotten."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "shape": asdict(self.model.config),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: with equal batches every later step is bit-equal on the same processor."""
        if state["shape"] != asdict(self.model.config):
            raise WeightsError(f"the checkpoint is of another network: {state['shape']}, the run wants {asdict(self.model.config)}")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.best = state["step"], state.get("seconds", 0.0), state["best"]
        torch.set_rng_state(state["random"])


class Run:
    """The folder of a run.

    `checkpoint.pt` (all of the state), `best.safetensors` (averaged weights), `config.json`, `curve.csv`, `curve.png`.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self.trainer = folder, trainer
        folder.mkdir(parents=True, exist_ok=True)
        self.saved_at = time.monotonic()

    def resume(self) -> bool:
        """Load the checkpoint if there is one. Lines of the curve for later steps go: those steps are taken, and judged, again."""
        path = self.folder / "checkpoint.pt"
        found, changed = path.exists(), {}
        if found:
            state = torch.load(path, weights_only=True, map_location="cpu")  # where random states have to be
            changed = changes(state["config"], self.trainer.config, self.folder)
            self.trainer.load_state(state)
        self._cut_curve()
        self._describe(changed, anew=not found)
        return found

    def _describe(self, changed: dict[str, tuple[Any, Any]], *, anew: bool) -> None:
        """Write `config.json`: the options, and under "changed" the steps from which on some are others than before."""
        path, step = self.folder / "config.json", self.trainer.step
        known: list[dict[str, Any]] = []
        if not anew:
            with contextlib.suppress(OSError, ValueError):  # gone, or cut by a kill: the checkpoint alone decides what goes on
                known = json.loads(path.read_text()).get("changed", [])
        if changed:
            told = ", ".join(f"--{name.replace('_', '-')} {now} instead of {was}" for name, (was, now) in changed.items())
            tqdm.write(f"goes on from step {step} with {told}")
            known = [*(entry for entry in known if entry["step"] != step), {"step": step, **changed}]
        values = {**asdict(self.trainer.config), **({"changed": known} if known else {})}
        write_file(path, (json.dumps(values, indent=1) + "\n").encode())

    def save(self) -> None:
        """Write the checkpoint to a new file and rename it: a kill leaves the old one."""
        part = self.folder / "checkpoint.part"
        torch.save(self.trainer.state(), part)
        part.replace(self.folder / "checkpoint.pt")
        self.saved_at = time.monotonic()

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved_at >= self.trainer.config.save_every:
            self.save()

    def save_best(self, score: float) -> None:
        """Keep the averaged weights if their held-out score is the highest so far; that of a run that diverged is no number."""
        if math.isnan(score) or score <= self.trainer.best:
            return
        self.trainer.best = score
        part = self.folder / "best.part"
        save_model(self.trainer.average, part, {"step": str(self.trainer.step), "held_out": f"{score:.4f}"})
        part.replace(self.folder / "best.safetensors")

    def _cut_curve(self) -> None:
        path, part = self.folder / "curve.csv", self.folder / "curve.part"
        if not path.exists():
            return
        header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
        kept = [row for row in rows if row.endswith(b"\n") and int(row.split(b",")[0]) <= self.trainer.step]  # a kill can cut the last
        if not kept:
            path.unlink()
        elif kept != rows:
            part.write_bytes(b"".join([header, *kept]))
            part.replace(path)

    def log(self, row: dict[str, float]) -> None:
        path = self.folder / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})


def progress(steps: int, start: int) -> AbstractContextManager[Any]:
    return tqdm(total=steps, initial=start, unit="step", disable=None)  # type: ignore[no-any-return]


def batches(config: TrainConfig, pairs: Sequence[Path], start: int, *, pinned: bool) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The batches of steps `start`, `start` + 1, ...; each is decided by (seed, step) alone. `pinned` memory goes to a card unwaited.

    Closed, it lets its readers end.
    """
    data = PairBatches(
        *pairs,
        batch=config.batch,
        side=config.side,
        clean_share=config.clean_share,
        seed=config.seed,
        recoloured=config.recoloured,
    )
    if data.left_out:
        tqdm.write(f"left out: {data.left_out} training pairs of files that another of the folders holds out")
    context = "spawn" if config.workers else None
    yield from DataLoader(
        data,
        batch_size=None,
        sampler=range(start, config.steps),
        num_workers=config.workers,
        multiprocessing_context=context,
        pin_memory=pinned,
        worker_init_fn=leave_stops_to_the_run,
    )


def leave_stops_to_the_run(_worker: int) -> None:
    """A terminal sends Ctrl-C to readers too, and a run whose readers are gone cannot finish its step: they end when it lets go of them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def evaluate(run: Run, held: HeldOut, loss: float) -> None:
    """Held-out gains over bicubic of the averaged weights; the best are kept, a line goes to the curve."""
    trainer = run.trainer
    gains = held.gains(trainer.average, trainer.device, trainer.config.amp)
    score = held.score(gains, trainer.config.clean_share)
    run.save_best(score)
    run.log({"step": trainer.step, "time": int(time.time()), "loss": loss, "score": score, **gains})
    tqdm.write(f"step {trainer.step}: loss {loss:.4f}, " + ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items()))


def train(
    pairs: Sequence[Path],
    folder: Path,
    config: TrainConfig,
    *,
    start: Path | None = None,
    stop_at: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Trainer:
    """Train on folders of pairs; goes on from the checkpoint in `folder` if there is one, else from `start`'s weights, else from nothing.

    `stop_at` ends early, the schedule unchanged; `stopped` is asked after each step. Returns the trainer as it stood at the end.
    """
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held = HeldOut(*pairs, clean_only=config.clean_share == 1)
    trainer = Trainer(config, held.scale, device)
    run = Run(folder, trainer)
    if not run.resume() and start is not None:
        new = trainer.warm_start(load_start(start))
        tqdm.write(f"warm start from {start.name}; new: {', '.join(new) or 'nothing'}")
    error = take_steps(run, held, pairs, config.steps if stop_at is None else min(config.steps, stop_at), stopped)
    run.save()  # before the last judging, for which a lent machine may have no time
    if error is not None and trainer.step % config.eval_every:
        evaluate(run, held, error)
        run.save()
    plot_curve(folder)
    return trainer


def take_steps(run: Run, held: HeldOut, pairs: Sequence[Path], end: int, stopped: Callable[[], bool]) -> float | None:
    """Steps up to `end` or until the clock's end; their smoothed error, or None where none was left or `stopped` said so."""
    trainer, config = run.trainer, run.trainer.config
    smooth: Tensor | None = None
    begun = time.monotonic() - trainer.seconds
    given = batches(config, pairs, trainer.step, pinned=trainer.device.type != "cpu")
    with progress(config.steps, trainer.step) as bar, closing(given):
        for low, high in given:
            if trainer.step >= end or time_share(config, trainer.seconds) >= 1:
                break
            error = trainer.train_step(low, high)
            trainer.seconds = time.monotonic() - begun
            smooth = error if smooth is None else torch.lerp(smooth, error, 0.01)
            bar.update()
            if trainer.step % config.eval_every == 0:
                evaluate(run, held, float(smooth))
            run.save_if_due()
            if stopped():
                tqdm.write(f"stopped after step {trainer.step} of {config.steps}; the same command goes on")
                return None
    return None if smooth is None else float(smooth)


def load_start(path: Path) -> dict[str, Tensor]:
    """Weights for a warm start, rescaled to values 0..1; a file for another scale gives its trunk."""
    return load_model(path).state_dict()


def plot_curve(folder: Path) -> None:
    """`curve.png` from `curve.csv`; nothing where matplotlib is not installed, or nothing was evaluated yet."""
    if not (folder / "curve.csv").exists():
        return
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with (folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    figure, axes = pyplot.subplots()
    for name in [key for key in rows[0] if key not in {"step", "time", "loss", "score"}]:
        axes.plot([float(row["step"]) for row in rows], [float(row[name]) for row in rows], label=name)
    axes.set(xlabel="step", ylabel="held out: dB over bicubic")
    axes.legend()
    figure.savefig(folder / "curve.png", dpi=120)
    pyplot.close(figure)
