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

from segmentation.models.head_neck_oar import WINDOWS_HU
from segmentation.network import build_network
from segmentation.training.augment import sample
from segmentation.training.curves import draw_curves
from segmentation.training.data import LABELS, PATCH_ZYX, Case, load_case, load_cases, split_ids
from segmentation.training.loss import masked_loss
from segmentation.training.optimizer import CHANNELS_LAST, Optimizer
from segmentation.training.score import mean_dice, probabilities

WARM_UP, DECAY_SHARE, EMA_DECAY = 100, 0.55, 0.998
RARE = {"Esophagus": 2.0, "Larynx": 1.4}  # a patient with an organ that few have is drawn so much more often
PHANTOM_SHARE = 0.06
# Mirrored patients are twice as many heads, but no patient's esophagus lies to the right: they teach for so long only.
MIRROR_CHANCE, MIRRORED_SHARE = 0.5, 0.64
INSIDE_WEIGHT, INSIDE_STEPS = 4.0, 1500
# A structure that few patients have can sink to nothing before the features that show it exist. It is then begun again,
# and a voxel inside it counts more for a while.
LOOK_FROM, LOOK_EVERY, LOOK_CASES, ASLEEP_BELOW = 2000, 500, 3, 0.01
WAKE_WEIGHT, WAKE_STEPS = 10.0, 1000
PRIOR_LOGIT, BODY_PRIOR_LOGIT = -5.0, -1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the result, besides the data."""

    steps: int = 9000
    seed: int = 20261122
    batch: int = 1
    learning_rate: float = 6e-3
    weight_decay: float = 1e-4
    filters: tuple[int, ...] = (8, 32, 64, 160, 256)
    patch: tuple[int, int, int] = PATCH_ZYX

    def network(self) -> dict[str, Any]:
        """Configuration of the network as model.json has it."""
        return {"in_channels": len(WINDOWS_HU), "out_channels": len(LABELS), "filters": list(self.filters)}

    def inside_weight_at(self, step: int, woken_step: int | None = None) -> float:
        """How much a voxel inside a structure counts in the cross-entropy: more at first and after it was woken, then 1."""
        woken = 0.0 if woken_step is None else WAKE_WEIGHT * (1 - (step - woken_step) / WAKE_STEPS)
        return max(1.0, INSIDE_WEIGHT * (1 - step / INSIDE_STEPS), woken)

    def mirror_chance_at(self, step: int) -> float:
        """How often a patch is mirrored."""
        return MIRROR_CHANCE if step < self.steps * MIRRORED_SHARE else 0.0

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
        self.woken: dict[str, int] = {}  # step at which a structure was last begun again
        placed: Any = build_network(settings.network()).to(device)  # torch's types know no memory format of a module
        self.network: torch.nn.Module = placed.to(memory_format=CHANNELS_LAST)
        begin_at_prior(self.network)
        self.average = deepcopy(self.network).eval()
        self.optimizer = Optimizer(self.network, settings.weight_decay)

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        part = path.with_suffix(".part")
        state = {"step": self.step, "network": self.network.state_dict(), "average": self.average.state_dict()}
        state |= {"woken": self.woken, "optimizer": self.optimizer.state_dict(), "config": self.settings.network()}
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings. Raises ValueError when the network is another."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != self.settings.network():
            raise ValueError(f"{path} holds the network {state['config']}, not {self.settings.network()}")
        self.step, self.woken = int(state["step"]), dict(state["woken"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def wake(self, cases: list[Case]) -> list[str]:
        """Begin again, at their prior and on the features found meanwhile, the structures that the network never sees.

        Returns them. A structure is asleep when the mean probability inside it, in the first cases that have it, is nothing.
        """
        asleep = []
        for b, name in enumerate(LABELS):
            having = [c for c in cases if c.has[b] and not c.phantom][:LOOK_CASES]
            given = [
                probabilities(self.network, c.hu, self.settings.patch, self.device)[b][c.bits >> b & 1 > 0] for c in having
            ]
            if given and float(np.concatenate(given).mean()) < ASLEEP_BELOW:
                asleep.append(name)
        for name in asleep:
            channel = LABELS.index(name)
            for network in (self.network, self.average):
                last = last_convolution(network)
                with torch.no_grad():
                    last.weight[channel], last.bias[channel] = 0.0, PRIOR_LOGIT
            for memory in self.optimizer.memory(last_convolution(self.network), channel):
                memory.zero_()
            self.woken[name] = self.step
        return asleep

    def advance(self, cases: list[Case], weights: NDArray[np.float64]) -> float:
        """One step; returns its loss."""
        settings = self.settings
        drawn = []
        for i in range(settings.batch):
            rng = np.random.default_rng([settings.seed, self.step, i])
            drawn.append(
                sample(cases[rng.choice(len(cases), p=weights)], settings.patch, rng, settings.mirror_chance_at(self.step))
            )
        x, labels, known = (torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*drawn, strict=True))
        self.network.train()
        with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16):
            logits = self.network(x.to(memory_format=CHANNELS_LAST))
        inside = [settings.inside_weight_at(self.step, self.woken.get(name)) for name in LABELS]
        loss = masked_loss(logits.float(), labels, known, inside)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step(settings.learning_rate_at(self.step))
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for kept, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
        self.step += 1
        return float(loss.detach())


def last_convolution(network: torch.nn.Module) -> Any:
    """The convolution whose output channels are the structures."""
    return [m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and m.out_channels == len(LABELS)][-1]


def begin_at_prior(network: torch.nn.Module) -> None:
    """Let the untrained network say how often a voxel belongs to an organ (about 1 in 150), and to the body (1 in 4).

    From one half, the first thousand steps would only teach it that organs are small.
    """
    last = last_convolution(network)
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
    parser.add_argument("--until", type=int, help="end at this step, at the rates of a run of --steps")
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
        until = min(args.until or settings.steps, settings.steps)
        train(run, cases, held, weights, checkpoint, out, until=until, score_every=args.score_every)
    draw_curves(log, args.out / "curves.png")


def train(
    run: Run,
    cases: list[Case],
    held: list[Case],
    weights: NDArray[np.float64],
    checkpoint: Path,
    log: TextIO,
    *,
    until: int,
    score_every: int,
) -> None:
    """Advance to step `until`, with a line of progress every 50 and a checkpoint every 250."""
    started, first, losses = time.monotonic(), run.step, []
    while run.step < until:
        if run.step >= LOOK_FROM and run.step % LOOK_EVERY == 0 and (asleep := run.wake(cases)):
            say(f"  begun again: {', '.join(asleep)}")
        losses.append(run.advance(cases, weights))
        if run.step % 50 == 0:
            seconds = (time.monotonic() - started) / (run.step - first)
            left_min = seconds * (until - run.step) / 60
            row: dict[str, Any] = {"step": run.step, "loss": float(np.mean(losses)), "seconds_per_step": seconds}
            done = f"step {run.step}/{until}"
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
