"""SAMformer: a forecast of electricity transformers, with and without SAM."""

from __future__ import annotations

from collections.abc import Iterator

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Cell, Paper, Recipe, sam, sgd

#: Steps ahead: rho of the paper's Table 4, and the mean squared error it prints.
HORIZONS = {96: (0.5, "0.381"), 192: (0.6, "0.409"), 336: (0.9, "0.423"),
            720: (0.9, "0.427")}  # fmt: skip

#: What ``flatmin sweep`` tries.
RHOS = (0.2, 0.5, 0.7, 1.0)


def forecast() -> Recipe:
    """Mean squared error of a forecast of ETTh1 by its length."""
    return Recipe(
        name="forecast",
        title="SAMformer on ETTh1, test MSE",
        headings=("data", "horizon", "method"),
        cells=tuple(_cells()),
        notes=(
            "The paper is SAMformer (Ilbert et al., ICML 2024, arXiv:2402.10198), not "
            "that of SAM. Its network, SAMformer, attends between the 7 channels of a "
            "window of 512 hours and forecasts with one linear layer.",
            "The series is standardised by the mean and deviation of its first 12 "
            "months, and so are the errors. Validation takes the next 4 months and the "
            "test the 4 after these; the first windows look back into the part before.",
            "Adam alone is trained for the epochs of SAM and for twice as many, and "
            "the better mean is reported, since a step of SAM takes two gradients.",
            "The paper trains for up to 300 epochs and stops early by the validation "
            "error; the default of the authors' code is 100. Here: 30 epochs, and the "
            "weights of the last one. The learning rate falls in a cosine, step by "
            "step.",
            "rho comes from the paper's Table 4; the authors' script has 0.7 for every "
            "horizon.",
            "The authors' code for TensorFlow has values of width 16 and a linear "
            "layer behind them; their code for PyTorch has values of the window's "
            "length. Here: the latter.",
        ),
        scale="30 epochs instead of up to 300 with early stopping",
        rhos=RHOS,
    )


def _base(horizon: int) -> Experiment:
    return Experiment(
        data="etth1",
        horizon=horizon,
        augment=(),
        model="samformer",
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        batch_size=256,
        epochs=30,
        flatness_rho=None,
    )


def _cells() -> Iterator[Cell]:
    for horizon, (rho, printed) in HORIZONS.items():
        base = _base(horizon)
        for slug, label, arms, paper in (
            ("adam", "Adam", sgd(base), None),
            ("sam", "SAM", sam(base, rho), Paper.printed(printed)),
        ):
            yield Cell(
                name=f"forecast/etth1/{horizon}/{slug}",
                labels=("ETTh1", str(horizon), label),
                arms=arms,
                metric="test_mse",
                paper=paper,
            )
