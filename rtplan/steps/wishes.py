"""Goals of a protocol as wishes that an optimiser can bargain about: convex functions of dose, levels, and prices.

Every goal of the DVH grammar is one of three: a mean, a generalised mean, or a dose that all but a share of the volume keeps
to (V20Gy <= 30 % says that D30% <= 20 Gy). A wish that is not met costs its price for each Gy; the price rises from nothing,
as the multiplier of an augmented Lagrangian does, and ends at the cap that its priority gives it (Gill and Wong's elastic
mode; ECHO's hierarchy, Zarepisheh et al., Oper Res 68:1, 2020). A wish whose price ends below its cap is met; one at its cap
would cost those above it too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.prescription import Normalisation, Prescription
from rtplan.errors import PlanningFailed
from rtplan.steps.samples import Samples

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
WishKind = Literal["mean", "eud", "tail"]

# Price caps in Gy² of objective for each Gy, by priority; further priorities as the last.
PRICE_CAPS = (1000.0, 300.0, 60.0, 30.0, 10.0, 3.0)
MEAN_STIFFNESS = 6.0  # Gy of price for each Gy beyond, where a price begins
TAIL_STIFFNESS = (60.0, 15.0)  # the same of tails: priorities 0 and 1, and below
OUT_OF_REACH_GY, NEARLY_ALL = 0.5, 0.95  # beyond the level at such a share of the price's cap
SLIP = 0.01  # of the level, that what was reached may slip by afterwards
STIFFER, STIFFEST = 2.0, 100.0  # factor at each repricing that finds a wish unkept below its cap; and at most in all
SMALLEST_TAIL = 0.01  # of the volume: caps of smaller tails rise no further
WHOLE = 10.0  # times its cap: what all of an organ that lies where a target needs more may ask together
TOLERANCE_GY = 0.1  # beyond a level: a wish missed by less counts as kept
IDEAL_SHARE = 0.4  # of a goal's price cap, that its ideal may cost
EXEMPT = 0.8  # of the volume that a goal lets off is let off: what other grids see differently needs room
FEW, ROOM_OF_FEW = 0.02, 1.7  # what hangs on so small a share of the volume moves more: room for it, in times that of others


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """One goal on the optimiser's voxels.

    `rows` (m,) of the dose vector; `mixing` (n, m) makes points of them, None where each row is a point; `share` (n,) of the
    structure's volume that each point stands for, sum 1. `level_gy` is what the mean, the
    generalised mean (exponent `exponent`) or, for a tail, the dose of every point but the share `exempt` of the volume is to
    keep to: below it where `upper`, else above.
    """

    goal: Goal
    kind: WishKind
    rows: Rows
    share: Floats
    upper: bool
    level_gy: float
    price_cap: float
    stiffness: float
    exempt: float = 0.0
    exponent: float = 1.0
    mixing: sp.csr_matrix | None = None
    room_gy: float = 0.0  # that the level was made stricter than the goal's limit
    contested: float = 0.0  # share of the volume that goals of higher priority want above an upper level
    is_ideal: bool = False  # of the goal's ideal, not of its limit: worth less, and nothing is missed without it
    beside_gy: Floats | None = None  # (n,) measured at each point beyond what the mixture of the rows shows there
    let_go: bool = False  # its level is what was reached, not what is asked for
    insistence: float = 1.0  # that the price cap was multiplied by since the apertures began
    unseen_gy: float = 0.0  # what the level already allows for: the goal's value on all CT voxels less that at the points

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", frozen(self.rows, np.int64))
        object.__setattr__(self, "share", frozen(self.share, np.float64))
        if self.beside_gy is not None:
            object.__setattr__(self, "beside_gy", frozen(self.beside_gy, np.float64))
        points = self.rows.shape if self.mixing is None else self.mixing.shape[:1]
        if points != self.share.shape or not len(self.rows) or not np.isclose(self.share.sum(), 1.0):
            raise ValueError(f"{self.goal.structure}: one share a point is needed, of sum 1")

    @property
    def label(self) -> str:
        """Structure and metric, such as "Parotid_L Mean[Gy]"."""
        return f"{self.goal.structure} {self.goal.metric.text}"

    @property
    def top_price(self) -> float:
        """Highest price of a voxel's Gy (tails) or of the mean's."""
        smallest = max(self.exempt / EXEMPT, SMALLEST_TAIL, self.contested / WHOLE)
        return self.price_cap / smallest if self.kind == "tail" else self.price_cap

    def at_points(self, dose_gy: Floats) -> Floats:
        """Dose at the points (n,) for the dose of all rows."""
        seen = self.at_points_of(dose_gy[self.rows])
        return seen if self.beside_gy is None else seen + self.beside_gy

    def at_points_of(self, values: Floats) -> Floats:
        """Values of the wish's own rows (m,) at its points (n,)."""
        return values if self.mixing is None else np.asarray(self.mixing @ values)

    def value_gy(self, dose_gy: Floats) -> float:
        """The goal's value in Gy for the dose of all rows: the mean, the generalised mean, or the tail's border."""
        return self._value(self.at_points(dose_gy))

    def _value(self, dose: Floats) -> float:
        match self.kind:
            case "mean":
                return float(self.share @ dose)
            case "eud":
                return self._eud(dose)[0]
            case "tail":
                return tail_border_gy(dose, self.share, self.exempt / EXEMPT, upper=self.upper)

    def missed_gy(self, dose_gy: Floats) -> float:
        """How far the goal's value lies beyond the level, Gy; negative inside."""
        value = self.value_gy(dose_gy)
        return value - self.level_gy if self.upper else self.level_gy - value

    def beyond_gy(self, dose_gy: Floats) -> Floats:
        """How far beyond the level, in Gy: (1,) for means, (n,) for a tail; positive is too far."""
        dose = self.at_points(dose_gy)
        value = dose if self.kind == "tail" else np.array([self._value(dose)])
        return np.asarray(value - self.level_gy if self.upper else self.level_gy - value, dtype=np.float64)

    def pull(self, price: Floats, dose_gy: Floats) -> Floats:
        """Gradient (m,) by the rows' dose of the price times what is beyond, for the price of each entry of `beyond_gy`."""
        sign = 1.0 if self.upper else -1.0
        match self.kind:
            case "mean":
                own = price[0] * self.share
            case "eud":
                own = price[0] * self._eud(self.at_points(dose_gy))[1]
            case "tail":
                own = price * self.share
        return np.asarray(sign * (own if self.mixing is None else own @ self.mixing))

    def weight(self) -> Floats:
        """What an entry of `beyond_gy` weighs in sums."""
        return self.share if self.kind == "tail" else np.ones(1)

    def _eud(self, dose_gy: Floats) -> tuple[float, Floats]:
        """Generalised mean and its gradient."""
        dose = np.maximum(dose_gy, 1e-6)
        scale = float(dose.max() if self.exponent > 0 else dose.min())
        value = scale * float(self.share @ (dose / scale) ** self.exponent) ** (1.0 / self.exponent)
        return value, self.share * (dose / value) ** (self.exponent - 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Price:
    """Where the bargain about one wish stands: a price for each entry of `Wish.beyond_gy`, which voxels are let off, and by
    how much the price rises for each Gy beyond."""

    amount: Floats
    exempt: NDArray[np.bool_]
    stiffness: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", frozen(self.amount, np.float64))
        object.__setattr__(self, "exempt", frozen(self.exempt, np.bool_))


def tail_border_gy(dose_gy: Floats, share: Floats, beyond_share: float, *, upper: bool) -> float:
    """Dose that all but `beyond_share` of the volume keeps to: the hottest (upper) or coldest part lies beyond it."""
    order = np.argsort(-dose_gy if upper else dose_gy, kind="stable")
    done = np.cumsum(share[order])
    return float(dose_gy[order[min(int(np.searchsorted(done, beyond_share * done[-1], side="right")), len(order) - 1)]])


def first_prices(wishes: tuple[Wish, ...]) -> tuple[Price, ...]:
    """Nothing costs anything yet, and nobody is let off."""
    sizes = [len(w.share) if w.kind == "tail" else 1 for w in wishes]
    return tuple(Price(np.zeros(n), np.zeros(n, dtype=bool), w.stiffness) for w, n in zip(wishes, sizes, strict=True))


def asked_price(wish: Wish, price: Price, beyond_gy: Floats) -> Floats:
    """What a wish asks where it stands `beyond_gy`: the old price and stiffness times excess, between 0 and the cap."""
    asked = np.clip(price.amount + price.stiffness * beyond_gy, 0.0, wish.top_price)
    asked[price.exempt] = 0.0
    return asked


def penalty(wish: Wish, price: Price, dose_gy: Floats) -> tuple[float, float, Floats]:
    """What a wish adds to the objective, its part of the Lagrangian, and the gradient (n,) by its rows' dose.

    The penalty is max over 0 <= p <= cap of p c - (p - price)² / (2 stiffness), the augmented Lagrangian of an elastic
    constraint c <= 0, plus a constant against negative values: smooth, convex where c is, and equal to the Lagrangian in its
    gradient. The Lagrangian is that of c <= `TOLERANCE_GY`, so that it never exceeds `full_cost`.
    """
    beyond = wish.beyond_gy(dose_gy)
    asked = asked_price(wish, price, beyond)
    weight = wish.weight()
    bound = float(weight @ (asked * (beyond - TOLERANCE_GY)))
    lack = (asked - price.amount) ** 2 - price.amount**2
    lack[price.exempt] = 0.0
    return float(weight @ (asked * beyond - lack / (2.0 * price.stiffness))), bound, wish.pull(asked, dose_gy)


def full_cost(wish: Wish, price: Price, dose_gy: Floats) -> float:
    """What violations of more than `TOLERANCE_GY` cost at the highest price: the wish's part of the elastic objective."""
    beyond = np.maximum(wish.beyond_gy(dose_gy) - TOLERANCE_GY, 0.0)
    beyond[price.exempt] = 0.0
    return wish.top_price * float(wish.weight() @ beyond)


def updated_price(wish: Wish, price: Price, dose_gy: Floats, *, choose: bool) -> Price:
    """The price that is asked now becomes the price. With `choose` the voxels to be let off are chosen anew as well."""
    beyond = wish.beyond_gy(dose_gy)
    exempt = price.exempt
    if choose and wish.kind == "tail" and wish.exempt > 0.0:
        order = np.argsort(-beyond, kind="stable")
        done = np.cumsum(wish.share[order])
        exempt = np.zeros(len(order), dtype=bool)
        exempt[order[: int(np.searchsorted(done, wish.exempt, side="right"))]] = True
    price = Price(np.where(exempt, 0.0, price.amount), exempt, price.stiffness)
    asked = asked_price(wish, price, beyond)
    open_question = (beyond > TOLERANCE_GY) & (asked < wish.top_price) & ~exempt
    stiffness = min(STIFFER * price.stiffness, STIFFEST * wish.stiffness) if open_question.any() else price.stiffness
    return Price(asked, exempt, stiffness)


def spent(wish: Wish, price: Price) -> float:
    """Share of its cap that a wish's price has reached, 0 to 1 (tails: of what the exempt share could ask)."""
    if wish.kind != "tail":
        return float(price.amount[0] / wish.price_cap)
    return min(1.0, float(wish.share @ price.amount) / wish.price_cap)


def within_reach(wish: Wish, price: Price, dose_gy: Floats) -> Wish:
    """The wish itself, or where all its price could not bring it near its level, one for what it has reached: whoever
    goes on chasing what is out of reach only hurts the others."""
    beyond = wish.missed_gy(dose_gy)
    if beyond <= OUT_OF_REACH_GY or spent(wish, price) < NEARLY_ALL:
        return wish
    slip = beyond + SLIP * abs(wish.level_gy)
    return replace(wish, level_gy=wish.level_gy + (slip if wish.upper else -slip), let_go=True)


def insisted_on(wish: Wish, price: Price, factor: float) -> tuple[Wish, Price]:
    """The wish with its price cap multiplied by `factor`, and the price that rises as much faster or slower."""
    wish = replace(wish, price_cap=factor * wish.price_cap, insistence=factor * wish.insistence)
    return wish, replace(price, stiffness=factor * price.stiffness)


def holds(wishes: tuple[Wish, ...], rule: Normalisation) -> bool:
    """Whether a lower goal lets off as much of the rule's structure as the rule's metric does (V100% >= 95 % and D95): its
    wish then keeps what is normalised."""
    metric = parse_metric(rule.metric)
    if metric.kind != "dose_at_percent":
        return False
    let_off = 1.0 - metric.argument / 100.0
    own = (w for w in wishes if w.goal.structure == rule.structure and w.kind == "tail" and not w.upper)
    return any(np.isclose(w.exempt / EXEMPT, let_off) for w in own)


def build_wishes(prescription: Prescription, samples: Mapping[str, Samples], *, room_gy: float) -> tuple[Wish, ...]:
    """One wish for each goal of the prescription, on the structures' samples; no upper limits on one beyond the grid.

    Levels are `room_gy` inside the goals' limits, more where few voxels decide, for what grid and delivery will take.
    Raises PlanningFailed GOAL_WITHOUT_VOXELS for a structure that no voxel of the grid represents, GOAL_NOT_CONVEX for a
    generalised mean on the side that is not convex.
    """
    found = []
    for goal in prescription.goals:
        own = samples[goal.structure]
        if own.beyond and goal.sense == "<=":
            continue  # no beam comes near it: judged like all others, but nothing to bargain about
        if not own.mixing.shape[0]:
            raise PlanningFailed(
                "GOAL_WITHOUT_VOXELS",
                f"{goal.structure} has no voxel on the optimisation grid",
                f"at least one for the goal {goal.metric.text}",
                "check that the structure lies in the body",
            )
        found.append(_wish(goal, own, prescription.prescribed_gy(goal.structure), room_gy))
    return tuple(replace(wish, contested=_contested_share(wish, found)) for wish in found)


def _contested_share(wish: Wish, wishes: Sequence[Wish]) -> float:
    """Share of an upper wish's volume that lower wishes of higher priority want above its level."""
    claims = [w for w in wishes if not w.upper and w.level_gy > wish.level_gy and w.goal.priority < wish.goal.priority]
    if not wish.upper or not claims:
        return 0.0
    claimed = np.isin(wish.rows, np.concatenate([w.rows for w in claims])).astype(np.float64)
    return float(wish.share @ (wish.at_points_of(claimed) > 0.5))


def build_ideals(prescription: Prescription, samples: Mapping[str, Samples], *, room_gy: float) -> tuple[Wish, ...]:
    """One wish for each ideal that a goal of the prescription names, at `IDEAL_SHARE` of what its limit may cost."""
    found = []
    for goal in prescription.goals:
        if goal.ideal is not None and goal.ideal != goal.limit and not samples[goal.structure].beyond:
            better = replace(goal, limit=goal.ideal)
            wish = _wish(better, samples[goal.structure], prescription.prescribed_gy(goal.structure), room_gy)
            found.append(replace(wish, is_ideal=True, price_cap=IDEAL_SHARE * wish.price_cap))
    return tuple(found)


def _wish(goal: Goal, samples: Samples, prescribed_gy: float, room_gy: float) -> Wish:
    """A goal's wish with the level `room_gy` inside its limit, `ROOM_OF_FEW` times that where few voxels decide."""
    cap = PRICE_CAPS[min(goal.priority, len(PRICE_CAPS) - 1)]
    upper, metric = goal.sense == "<=", goal.metric
    if metric.kind == "eud_gy" and upper != (metric.argument >= 1.0):
        raise PlanningFailed(
            "GOAL_NOT_CONVEX",
            f"{goal.structure} {metric.text} {goal.sense} {goal.limit:g}",
            "an upper limit for exponents from 1, a lower one for negative exponents",
            "nothing can be proven of the other two: name another metric",
        )
    n = samples.mixing.shape[0]
    kind: WishKind = "mean" if metric.kind == "mean_gy" else "eud" if metric.kind == "eud_gy" else "tail"
    level_gy, volume = (goal.limit, 1.0) if kind != "tail" else dose_and_volume(goal, samples.volume_cc, prescribed_gy)
    let_off = (volume if upper else 1.0 - volume) if kind == "tail" else 0.0
    if kind == "tail" and let_off < FEW:
        room_gy *= ROOM_OF_FEW
    return Wish(
        goal,
        kind,
        samples.rows,
        np.full(n, 1.0 / n),
        upper,
        level_gy - room_gy if upper else level_gy + room_gy,
        cap,
        TAIL_STIFFNESS[min(max(goal.priority - 1, 0), 1)] if kind == "tail" else MEAN_STIFFNESS,
        exempt=EXEMPT * let_off,
        exponent=metric.argument if kind == "eud" else 1.0,
        mixing=samples.mixing,
        room_gy=room_gy,
    )


def dose_and_volume(goal: Goal, volume_cc: float, prescribed_gy: float) -> tuple[float, float]:
    """A goal on a dose at a volume or a volume at a dose, as (dose in Gy, share of the volume): D(share) against dose."""
    metric, limit = goal.metric, goal.limit
    match metric.kind:
        case "max_gy":
            return limit, 0.0
        case "min_gy":
            return limit, 1.0
        case "dose_at_percent":
            return limit, metric.argument / 100.0
        case "dose_at_cc":
            return limit, min(1.0, metric.argument / volume_cc)
        case "percent_at_gy":
            return metric.argument, limit / 100.0
        case "cc_at_gy":
            return metric.argument, min(1.0, limit / volume_cc)
        case "percent_at_percent":
            return metric.argument / 100.0 * prescribed_gy, limit / 100.0
        case "cc_at_percent":
            return metric.argument / 100.0 * prescribed_gy, min(1.0, limit / volume_cc)
    raise ValueError(f"{metric.text} is no dose-volume metric")
