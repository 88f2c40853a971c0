"""Training of the shipped head-and-neck model, on two cores or on a GPU.

`python -m segmentation.training.train --data ../shared/data/openkbp --phantoms DIR --out RUN`

Every step draws its patient and its augmentation from (seed, step) alone, so a run that was broken off goes on as if nothing
had happened: call it again. The learning rate is constant until the last part of the steps, so the same run can be ended at
any later number of steps. Written to RUN: checkpoint.pt, log.jsonl, curves.png.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.network import build_network
from segmentation.training.augment import sample
from segmentation.training.curves import draw_curves
from segmentation.training.data import LABELS, Case, load_case, load_cases, split_ids
from segmentation.training.loss import masked_loss
from segmentation.training.score import mean_dice

WARM_UP, DECAY_SHARE, EMA_DECAY = 100, 0.3, 0.998
RARE = {"Esophagus": 2.0, "Larynx": 1.4}  # a patient with an organ that few have is drawn so much more often
PHANTOM_SHARE = 0.06
PRIOR_LOGIT, BODY_PRIOR_LOGIT = -5.0, -1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the result, besides the data."""

    steps: int = 4000
    seed: int = 20261122
    batch: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    filters: tuple[int, ...] = (16, 32, 64, 128, 192)
    patch: tuple[int, int, int] = (64, 64, 96)

    def network(self) -> dict[str, Any]:
        """Configuration of the network as model.json has it."""
        return {"out_channels": len(LABELS), "filters": list(self.filters)}

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then half a cosine to zero over the last part."""
        start = round(self.steps * (1 - DECAY_SHARE))
        if step < WARM_UP:
            return self.learning_rate * (step + 1) / WARM_UP
        if step < start:
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - start) / (self.steps - start)))


class Run:
    """Network, its running average and the optimiser, at a step."""

    def __init__(self, settings: Settings, device: str) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.step = settings, device, 0
        self.network = build_network(settings.network()).to(device)
        begin_at_prior(self.network)
        self.average = deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=settings.weight_decay)

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        part = path.with_suffix(".part")
        state = {"step": self.step, "network": self.network.state_dict(), "average": self.average.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict(), "config": self.settings.network()}, part)
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings. Raises ValueError when the network is another."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != self.settings.network():
            raise ValueError(f"{path} holds the network {state['config']}, not {self.settings.network()}")
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def advance(self, cases: list[Case], weights: NDArray[np.float64]) -> float:
        """One step; returns its loss."""
        settings = self.settings
        drawn = []
        for i in range(settings.batch):
            rng = np.random.default_rng([settings.seed, self.step, i])
            drawn.append(sample(cases[rng.choice(len(cases), p=weights)], settings.patch, rng))
        x, labels, known = (torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*drawn, strict=True))
        self.network.train()
        with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16):
            logits = self.network(x)
        loss = masked_loss(logits.float(), labels, known)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step)
        self.optimizer.step()
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for kept, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
        self.step += 1
        return float(loss.detach())


def begin_at_prior(network: torch.nn.Module) -> None:
    """Let the untrained network say how often a voxel belongs to an organ (about 1 in 150), and to the body (1 in 4).

    From one half, the first thousand steps would only teach it that organs are small.
    """
    last = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and m.out_channels == len(LABELS)][-1]
    if last.bias is None:
        raise ValueError("the network's last convolution has no bias")
    with torch.no_grad():
        last.bias.fill_(PRIOR_LOGIT)
        last.bias[LABELS.index("External")] = BODY_PRIOR_LOGIT


def chances(cases: list[Case]) -> NDArray[np.float64]:
    """How often each case is drawn."""
    rare = [math.prod(f for name, f in RARE.items() if c.has[LABELS.index(name)]) for c in cases]
    weights: NDArray[np.float64] = np.array([0.0 if c.phantom else r for c, r in zip(cases, rare, strict=True)])
    weights = weights / weights.sum()
    # The phantom with anatomy counts most; the bare ones teach that not everything is a patient.
    phantoms = np.array([float(c.has.sum()) if c.phantom else 0.0 for c in cases])
    if not phantoms.any():
        return weights
    mixed: NDArray[np.float64] = weights * (1 - PHANTOM_SHARE) + phantoms / phantoms.sum() * PHANTOM_SHARE
    return mixed


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with dev/ and dev_extra/")
    parser.add_argument("--phantoms", type=Path, help="made by python -m sample_data.training_set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--batch", type=int, default=Settings().batch)
    parser.add_argument("--filters", type=int, nargs="+", default=Settings().filters, help="channels a level")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--score-every", type=int, default=1000, help="steps between looks at four calibration patients")
    args = parser.parse_args()
    settings = Settings(steps=args.steps, batch=args.batch, filters=tuple(args.filters))
    args.out.mkdir(parents=True, exist_ok=True)
    cases = load_cases(args.data, split_ids("train"), args.out / "cache")
    held = load_cases(args.data, split_ids("calibration")[:4], args.out / "cache")
    cases += [load_case(p, p.stem) for p in sorted(args.phantoms.glob("*.npz"))] if args.phantoms else []
    weights, run = chances(cases), Run(settings, args.device)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "log.jsonl"
    if checkpoint.exists():
        run.resume(checkpoint)
    say(f"{len(cases)} cases, from step {run.step} to {settings.steps}")
    with log.open("a") as out:
        train(run, cases, held, weights, checkpoint, out, score_every=args.score_every)
    draw_curves(log, args.out / "curves.png")


def train(
    run: Run,
    cases: list[Case],
    held: list[Case],
    weights: NDArray[np.float64],
    checkpoint: Path,
    log: TextIO,
    *,
    score_every: int,
) -> None:
    """Advance to the last step, with a line of progress every 50 and a checkpoint every 250."""
    started, first, losses = time.monotonic(), run.step, []
    while run.step < run.settings.steps:
        losses.append(run.advance(cases, weights))
        if run.step % 50 == 0:
            seconds = (time.monotonic() - started) / (run.step - first)
            left_min = seconds * (run.settings.steps - run.step) / 60
            row: dict[str, Any] = {"step": run.step, "loss": float(np.mean(losses)), "seconds_per_step": seconds}
            done = f"step {run.step}/{run.settings.steps}"
            say(f"{done}  loss {row['loss']:.4f}  {seconds:.2f} s/step  {left_min:.0f} min left")
            losses = []
            if run.step % score_every == 0:
                row["dice"] = mean_dice(run.average, held, run.settings.patch, run.device)
                say("  Dice " + "  ".join(f"{name} {value:.3f}" for name, value in row["dice"].items()))
            log.write(json.dumps(row) + "\n")
            log.flush()
        if run.step % 250 == 0:
            run.save(checkpoint)
    run.save(checkpoint)


def say(line: str) -> None:
    """A line of progress, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
