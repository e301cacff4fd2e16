"""A comparison's verdict in three sentences, and its caveats."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flatmin.experiments.compare import edges
from flatmin.experiments.compare.plan import Comparison
from flatmin.experiments.compare.results import Row, best, best_base, best_other
from flatmin.experiments.intervals import Paired, mean, paired
from flatmin.experiments.table import counted

#: Errors on the training labels, beyond the noise, at which they count as fitted.
_FITTED = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and what to know before doing it.

    Attributes:
        sentences: what to use, what it gains, what it costs.
        warnings: what makes this less certain than it looks.
    """

    sentences: tuple[str, str, str]
    warnings: tuple[str, ...]


def verdict(
    what: Comparison, rows: list[Row], validation_images: int, shared: list[str]
) -> Verdict:
    """Return the verdict on the rows of one setting.

    Args:
        what: the comparison.
        rows: of all arms.
        validation_images: on how many images each seed's settings were chosen.
        shared: sentences on images that are trained on and tested on.
    """
    base, rival, winner = best_base(rows), best_other(rows), best(rows)
    gain = paired(base.errors, rival.errors)
    use = rival if rival is winner and gain.shown and gain.mean > 0 else base
    return Verdict(
        (_use(use), _gains(base, rival, gain), _costs(base, rival)),
        (
            *shared,
            *_warnings(base, rival, validation_images),
            *filter(None, (edges.warning(what, row) for row in (base, rival))),
        ),
    )


def _use(row: Row) -> str:
    noun = "its validation error was"
    return (
        f"Use {row.label} with {row.choice}: {noun} {mean(row.validation):.2f} %, "
        f"the best of {row.tries} tries."
    )


def _gains(base: Row, rival: Row, gain: Paired) -> str:
    n = len(base.errors)
    numbers = (
        f"{rival.label} errs on {rival.error:.2f} % of the test images, and "
        f"{base.label} at its best on {base.error:.2f} %"
    )
    if gain.half is None:
        return f"{numbers}; with one seed, no interval says what that is worth."
    low, high = gain.mean - gain.half, gain.mean + gain.half
    interval = f"{gain.mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if not gain.shown:
        return f"No difference shown: {numbers} ({interval}, {n} paired seeds)."
    word = "fewer" if gain.mean > 0 else "more"
    size = abs(gain.mean)
    return f"{numbers}: {size:.2f} points {word} ({interval}, {n} paired seeds)."


def _costs(base: Row, rival: Row) -> str:
    ratio = rival.gradient_examples / base.gradient_examples
    search = rival.search_examples / max(base.search_examples, 1)
    return (
        f"A run of {rival.label} takes {ratio:.2f} times the gradients of that run of "
        f"{base.label} ({rival.mean('seconds'):.1f} s against "
        f"{base.mean('seconds'):.1f} s), and choosing its settings took {search:.2f} "
        "times the gradients."
    )


def _warnings(base: Row, rival: Row, validation_images: int) -> list[str]:
    found = [_unfitted(row) for row in (base, rival)]
    found += [_too_close(base, rival, validation_images), _few_seeds(base)]
    return [one for one in found if one]


def _unfitted(row: Row) -> str:
    error, noise = row.mean("train_error"), 100 * row.experiment.noise
    if not error > noise + _FITTED:
        return ""
    return (
        f"{row.label} did not fit its training set: it errs on {error:.1f} % of the "
        "images that it was trained on. Train longer, or try other settings."
    )


def _too_close(base: Row, rival: Row, images: int) -> str:
    """Say so if there are too few validation images to tell the two apart."""
    a, b = mean(base.validation) / 100, mean(rival.validation) / 100
    n = images * len(base.validation)
    error = 100 * math.sqrt(max(a * (1 - a) + b * (1 - b), 1e-12) / n)
    if 100 * abs(a - b) >= 2 * error:
        return ""
    seeds = counted(len(base.validation), "seed")
    return (
        f"{images} validation images with {seeds} have a standard error of "
        f"{error:.1f} points and cannot tell {rival.label} ({100 * b:.2f} %) from "
        f"{base.label} ({100 * a:.2f} %)."
    )


def _few_seeds(base: Row) -> str:
    if len(base.errors) > 1:
        return ""
    return "One seed ran: set seeds=3 or more before believing a difference."
