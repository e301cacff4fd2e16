"""The ways to train that are compared, and the settings each chooses by validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from flatmin.experiments.compare.plan import decay_over
from flatmin.experiments.config import Experiment

#: Returns the options of a method for a number of steps.
Options = Callable[[int], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tries:
    """What validation chooses from.

    Attributes:
        base_lengths: of the base's schedule, in multiples of the task's.
        base_lrs: learning rates of the base, likewise.
        lengths: of a method's schedule; with wrong labels, short ones are better.
        at_base: whether a method is tried with the rate that the base chose, too.
        seeds: of the runs to choose from, which are not tested: tested runs have seeds
            0, 1, 2 and so on.
    """

    base_lengths: tuple[float, ...]
    base_lrs: tuple[float, ...]
    lengths: tuple[float, ...]
    at_base: bool = False
    seeds: tuple[int, ...] = (100, 101)


#: 20 tries for the base and 9 for a method, for tasks of seconds.
MANY = Tries((0.25, 0.5, 1.0, 1.1, 2.0), (0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0))

#: 16 tries for the base and 6 for a method, for tasks of minutes.
FEW = Tries((0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 4.0), (1.0,), at_base=True)

#: 20 and 6 for a task whose base overfits at higher rates.
FEW_LOW = Tries((0.25, 0.5, 1.0, 2.0), (0.1, 0.25, 0.5, 1.0, 2.0), (1.0,), at_base=True)

#: 12 and 6, with one seed, for tasks of minutes that have 5,000 images to choose by.
FEWEST = Tries(
    (0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 4.0), (1.0,), at_base=True, seeds=(100,)
)

#: Share of the steps over which the average of the weights reaches back.
AVERAGED = 0.1


def no_options(steps: int) -> dict[str, Any]:
    """Take the defaults of a method."""
    del steps
    return {}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run chooses.

    Attributes:
        length: of its schedule, in multiples of the task's.
        lr: its learning rate, likewise.
        rho: its radius; None for a base.
    """

    length: float
    lr: float
    rho: float | None


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Attributes:
        name: of its folder.
        words: its name in the table.
        method: of its runs.
        options: of the method.
        lengths: of the schedule, in multiples of the task's; one is chosen.
        lrs: learning rates, likewise.
        rhos: radii; None for those of the task, and nothing for a base.
    """

    name: str
    words: str
    method: str = "sgd"
    options: Options = field(default=no_options)
    lengths: tuple[float, ...] = (1.0,)
    lrs: tuple[float, ...] = (1.0,)
    rhos: tuple[float, ...] | None = None

    def settings(self, rhos: tuple[float, ...], base: Setting | None) -> list[Setting]:
        """Return the settings to choose from; a single one needs no choice.

        Args:
            rhos: radii of methods that climb like SAM.
            base: its choice, if a method is also tried with its rate. The length is
                then the base's too, but at most the method's: the base has the larger
                search.
        """
        places = list(product(self.lengths, self.lrs))
        if self.method == "sgd":
            return [Setting(length, lr, None) for length, lr in places]
        if base is not None:
            places.append((min(base.length, max(self.lengths)), base.lr))
        found = product(dict.fromkeys(places), self.rhos or rhos)
        return [Setting(length, lr, rho) for (length, lr), rho in found]

    def experiment(self, one: Setting, task: Experiment, per_epoch: int) -> Experiment:
        """Return a run with these settings.

        Args:
            one: the settings.
            task: the base's run, with the task's length and rate.
            per_epoch: steps of an epoch.
        """
        steps = max(1, round(one.length * task.epochs * per_epoch))
        changes = {
            "method": self.method,
            "method_options": self.options(steps),
            "lr": one.lr * task.lr,
            "rho": task.rho if one.rho is None else one.rho,
            "steps": steps,
            "ema": decay_over(AVERAGED * steps),
            "evaluate_every": 1_000_000,
        }
        return Experiment.model_validate({**task.model_dump(), **changes})


def _late(share: float) -> Options:
    return lambda steps: {"steps": steps, "share": share}


def arms(tries: Tries) -> tuple[Arm, ...]:
    """Return all ways to train.

    These are the base with its length and rate by validation; the base as it is,
    longer, and with other rates; SAM; and what costs less than SAM. Methods choose
    length and radius, and have fewer tries and gradients for it than the base.
    """
    return (
        Arm(
            "base-chosen",
            "base, length and rate by validation",
            lengths=tries.base_lengths,
            lrs=tries.base_lrs,
        ),
        Arm("base", "base"),
        Arm("base-1.1", "base, 1.1 times as long", lengths=(1.1,)),
        Arm("base-2", "base, 2 times as long", lengths=(2.0,)),
        Arm("base-lr-0.5", "base, half the rate", lrs=(0.5,)),
        Arm("base-lr-2", "base, 2 times the rate", lrs=(2.0,)),
        Arm("base-lr-4", "base, 4 times the rate", lrs=(4.0,)),
        Arm("sam", "SAM", "sam", lengths=tries.lengths),
        Arm("late-10", "late SAM, 10 %", "late_sam", _late(0.1), lengths=tries.lengths),
        Arm("late-20", "late SAM, 20 %", "late_sam", _late(0.2), lengths=tries.lengths),
        Arm("late-40", "late SAM, 40 %", "late_sam", _late(0.4), lengths=tries.lengths),
        Arm(
            "late-quarter",
            "late SAM, 40 %, on a quarter",
            "late_subset_sam",
            lambda steps: {"steps": steps, "late": 0.4, "share": 0.25},
            lengths=tries.lengths,
        ),
        Arm(
            "quarter",
            "SAM on a quarter",
            "subset_sam",
            lambda _: {"share": 0.25},
            lengths=tries.lengths,
        ),
        Arm(
            "ire",
            "IRE",
            "ire",
            lambda steps: {"start": steps // 3},
            lengths=tries.lengths,
            rhos=(1.0, 2.0, 4.0),
        ),
        Arm(
            "split",
            "random perturbation of half",
            "split_rwp",
            lambda steps: {"steps": steps},
            lengths=tries.lengths,
            rhos=(0.005, 0.015, 0.05),
        ),
        Arm(
            "momentum",
            "momentum SAM",
            "momentum_sam",
            rhos=(0.3, 1.0, 3.0),
            lengths=tries.lengths,
        ),
    )
