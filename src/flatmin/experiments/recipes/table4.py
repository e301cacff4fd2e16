"""Tables 4 and 8: CIFAR-10 with label noise."""

from __future__ import annotations

from collections.abc import Iterator

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import RHOS, Cell, M, Recipe, rows, sam, sgd

NOISE = (20, 40, 60, 80)

#: rho of SAM by noise.
RHO = {20: 0.1, 40: 0.1, 60: 0.1, 80: 0.05}

#: alpha of mixup; the best is reported.
ALPHAS = (1.0, 8.0, 16.0, 32.0)

METHODS = {
    "sgd": "SGD",
    "mixup": "Mixup",
    "bootstrap-mixup": "Bootstrap + Mixup",
    "sam": "SAM",
    "bootstrap-sam": "Bootstrap + SAM",
}

#: Accuracy by method and noise.
PRINTED = """
84.8 68.8 48.2 26.2
93.0 90.0 83.8 70.2
93.3 92.0 87.6 72.0
95.1 93.4 90.5 77.9
95.4 94.2 91.8 79.9
"""

LITERATURE = {
    "mentormix": "MentorMix",
    "mixup-before": "Mixup, as published",
    "mentornet": "MentorNet",
    "sanchez": "Sanchez et al.",
    "zhang-sabuncu": "Zhang, Sabuncu",
    "lee": "Lee et al.",
    "chen": "Chen et al.",
    "huang": "Huang et al.",
}

#: Accuracy by method of others and noise.
PRINTED_LITERATURE = """
95.6 94.2 91.3 81.0
94.0 91.5 86.8 76.9
92.0 91.2 74.2 60.0
94.0 92.8 90.3 74.1
89.7 87.6 82.7 67.9
87.1 81.8 75.4 -
89.7 -    -    52.3
92.6 90.3 43.4 -
"""

#: Table 8, error by rho and noise; the first row is rho = 0.
PRINTED_8 = """
15.0 31.2 52.3 73.5
13.7 28.7 50.1 72.9
12.8 27.8 48.9 73.1
11.6 25.6 47.1 21.0
4.6  6.0  8.7  56.1
5.3  7.4  23.3 77.1
17.6 40.9 80.1 89.9
"""


def table4() -> Recipe:
    """Test accuracy under label noise."""
    return Recipe(
        name="table4",
        title="CIFAR-10 with label noise, test accuracy in %",
        headings=("noise", "method"),
        cells=(*_cells(), *_literature()),
        notes=(
            *_notes.COMMON,
            _notes.NOISE,
            _notes.NOISE_KIND,
            "Mixup is tried with alpha 1, 8, 16 and 32 and the best mean is reported, "
            "with Bootstrap too.",
            "Bootstrap trains twice, the second time on the labels that the first "
            "network predicts.",
        ),
    )


def table8() -> Recipe:
    """Validation error under label noise, by rho."""
    return Recipe(
        name="table8",
        title="Label noise, validation error in % by rho",
        headings=("noise", "rho"),
        cells=tuple(_table8()),
        notes=(
            "The caption of Table 8 says accuracy. Its numbers are errors: 4.6 % at "
            "20 % noise and rho 0.1 is Table 4's accuracy of 95.4 %.",
            "The caption says bootstrapped SAM, and so it is trained here. The row of "
            "rho 0 is near to SGD without Bootstrap in Table 4: errors of 15.2, "
            "31.2, 51.8 and 73.8 %.",
            "Validation images are a tenth of the training set, with the right labels.",
            "With rho 0 SAM is SGD, here with as many epochs as for the other rho.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
            _notes.NOISE,
            _notes.NOISE_KIND,
        ),
    )


def _base(noise: int, *, bootstrap: bool = False, validation: float = 0) -> Experiment:
    return Experiment(
        data="cifar10",
        noise=noise / 100,
        true_class=True,
        bootstrap=bootstrap,
        validation=validation,
        model="resnet-32",
        m=M,
        lr=0.1,
        weight_decay=2e-4,
        epochs=200,
    )


def _arms(noise: int) -> dict[str, tuple[Experiment, ...]]:
    base, again = _base(noise), _base(noise, bootstrap=True)
    return {
        "sgd": sgd(base),
        "mixup": _mixup(base),
        "bootstrap-mixup": _mixup(again),
        "sam": sam(base, RHO[noise]),
        "bootstrap-sam": sam(again, RHO[noise]),
    }


def _mixup(base: Experiment) -> tuple[Experiment, ...]:
    mixed = (base.model_copy(update={"mixup": alpha}) for alpha in ALPHAS)
    return tuple(arm for one in mixed for arm in sgd(one))


def _cells() -> Iterator[Cell]:
    columns = zip(*rows(PRINTED), strict=True)
    for noise, numbers in zip(NOISE, columns, strict=True):
        arms = _arms(noise)
        for (slug, label), paper in zip(METHODS.items(), numbers, strict=True):
            yield Cell(
                name=f"table4/noise-{noise}/{slug}",
                labels=(f"{noise} %", label),
                arms=arms[slug],
                metric="test_accuracy",
                paper=paper,
            )


def _literature() -> Iterator[Cell]:
    table = zip(LITERATURE.items(), rows(PRINTED_LITERATURE), strict=True)
    for (slug, label), numbers in table:
        for noise, paper in zip(NOISE, numbers, strict=True):
            if paper is not None:
                yield Cell(
                    name=f"table4/noise-{noise}/{slug}",
                    labels=(f"{noise} %", label),
                    arms=(),
                    metric="test_accuracy",
                    paper=paper,
                )


def _table8() -> Iterator[Cell]:
    columns = zip(*rows(PRINTED_8), strict=True)
    for noise, numbers in zip(NOISE, columns, strict=True):
        base = _base(noise, bootstrap=True, validation=0.1)
        for rho, paper in zip((0.0, *RHOS), numbers, strict=True):
            yield Cell(
                name=f"table8/noise-{noise}/rho-{rho:g}",
                labels=(f"{noise} %", f"{rho:g}"),
                arms=sam(base, rho) if rho else sgd(base, lengths=(1,)),
                paper=paper,
            )
