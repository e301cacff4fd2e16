"""Appendices C.4 and C.5: second-order terms, and other perturbations."""

from __future__ import annotations

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, M, Recipe

_BASE = Experiment(model="wrn-40-2", m=M, epochs=200)

#: Method and options by name in paths, with the name in tables.
PERTURBATIONS = {
    "l2": ("p = 2", "sam", {}),
    "linf": ("p = inf", "sam", {"p": "inf"}),
    "random": ("random", "random_sam", {}),
}

#: Figure 6's axis.
POWERS = range(-6, 4)


def c4() -> Recipe:
    """Test error with and without the second-order terms of SAM's gradient."""
    methods = {"sam": "first order", "second_order_sam": "second order"}
    return Recipe(
        name="c4",
        title="Second-order terms, CIFAR-10, test error in %",
        headings=("gradient",),
        cells=tuple(
            Cell(
                name=f"c4/{label.replace(' ', '-')}",
                labels=(label,),
                arms=(_BASE.model_copy(update={"method": method}),),
            )
            for method, label in methods.items()
        ),
        notes=(
            "A figure without a table: with second-order terms the error is higher.",
            "The paper does not give learning rate, weight decay, augmentation, epochs "
            "or rho. Here: those of WRN-28-10 with Basic in Table 6.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
        ),
    )


def c5() -> Recipe:
    """Test error by norm and rho, and with random perturbations."""
    return Recipe(
        name="c5",
        title="Other perturbations, CIFAR-10, test error in %",
        headings=("perturbation", "rho"),
        cells=tuple(
            Cell(
                name=f"c5/{slug}/rho-1e{power}",
                labels=(label, f"1e{power}"),
                arms=(
                    _BASE.model_copy(
                        update={
                            "method": method,
                            "method_options": options,
                            "rho": float(f"1e{power}"),
                        }
                    ),
                ),
            )
            for slug, (label, method, options) in PERTURBATIONS.items()
            for power in POWERS
        ),
        notes=(
            "A figure without a table: by its axes, rho is from 1e-6 to 1e3 and the "
            "error from 3.4 % to 5.0 %, lowest for p = 2.",
            "C.5 prints the squares of the gradient's and of the random vector's norm "
            "in denominators; eq. 2 has the norms. Here: the norms.",
            "With p = inf the perturbation is rho sign(g), in eq. 2 as in C.5. One rho "
            "means another length for each p, so the figure sweeps each by itself and "
            "no rho carries over.",
            "The paper says a wide ResNet and not which, nor its settings. Here: those "
            "of C.4, with WRN-40-2.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
        ),
    )
