"""Methods that climb along something other than the batch's gradient."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Record

import torch
from comparison import Load, Row, convnet, one_matrix, without_biases
from extraction import REGISTRY, Numbers, extract, taken
from loops import SGD, Batches, Build, Run, base, custom, loss, ours, probe, two_calls
from torch import Tensor, nn

from flatmin import SAM, methods
from flatmin.core import LpBall, PerGroup, TwoPoint, filters

sgd = torch.optim.SGD

f_sam = taken(
    "utils.py",
    "FriendlySAM",
    lambda kind, m: kind(m.parameters(), sgd, rho=0.1, sigma=1, lmbda=0.95, **SGD),
)


def vasso(numbers: Numbers) -> Load:
    return taken(
        "solver/vasso.py",
        "VASSO",
        lambda kind, m: kind(m.parameters(), base(m), 0.1, 0.4),
        numbers=numbers,
        **REGISTRY,
    )


def gcsam(norm_after: bool, descent_too: bool) -> Load:
    """Switch each of the two deviations by a subclass."""

    def load(folder: Path) -> Run:
        path = folder / "cifar10_gcsam_resnet50.py"
        there = extract(path, "centralized_gradient", "GCSAM")

        class Patched(there.GCSAM):
            def centre(self) -> None:
                for group in self.param_groups:
                    for p in group["params"]:
                        there.centralized_gradient(p.grad)

            def _grad_norm(self) -> Tensor:
                if norm_after:
                    self.centre()
                return super()._grad_norm()

            def second_step(self, zero_grad: bool = False) -> None:
                if descent_too:
                    self.centre()
                super().second_step(zero_grad)

        return two_calls(lambda m: Patched(m.parameters(), sgd, rho=0.1, **SGD))

    return load


zsharp = taken(
    "main.py",
    "SAM",
    lambda kind, m: kind(
        m.parameters(), sgd, rho=0.1, hparams=Record(zsam=True, alpha=0.8), **SGD
    ),
)


def per_matrix(model: nn.Module, batches: Batches) -> None:
    """Put each parameter into a group of its own."""
    groups = [{"params": [p]} for p in model.parameters()]
    method = TwoPoint(filter=filters.outliers(0.8), metric=PerGroup(LpBall()))
    probe(SAM(sgd(groups, **SGD), model, rho=0.1, method=method), model, batches)


def momentum(build: Build) -> Run:
    """Train with an optimizer that leaves the weights perturbed between steps."""

    def run(model: nn.Module, batches: Batches) -> None:
        optimizer = build(model)
        for x, y in batches:
            optimizer.zero_grad()
            loss(model, x, y).backward()
            optimizer.step()
        optimizer.move_back_from_momentumAscent()

    return run


def msam(decays: float) -> Load:
    return taken(
        "optimizer/msam.py",
        "MSAM",
        lambda kind, m: kind(m.parameters(), **SGD, rho=0.3, weight_decay=decays),
        momentum,
    )


adamw_msam = taken(
    "optimizer/adamW_msam.py",
    "AdamW_MSAM",
    lambda kind, m: kind(m.parameters(), lr=0.01, weight_decay=0.0, rho=0.3),
    momentum,
    needs=("adamW_msam",),
)


def our_momentum(decays: float) -> Run:
    def run(model: nn.Module, batches: Batches) -> None:
        decayed, inside = base(model, weight_decay=decays), decays > 0
        optimizer = methods.momentum_sam(
            decayed, model, rho=0.3, decay_in_ascent=inside
        )
        probe(optimizer, model, batches)

    return run


def our_adamw(model: nn.Module, batches: Batches) -> None:
    adamw = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    probe(methods.momentum_sam(adamw, model, rho=0.3), model, batches)


our_vasso = ours(methods.vasso, rho=0.1, theta=0.4)
our_gcsam = ours(methods.gcsam, rho=0.1)
our_zsharp = ours(methods.zsharp, rho=0.1, share=0.8)
CENTRED = "Mohamed-Hassan22/GCSAM"
Z = "YUNBLAK/Sharpness-Aware-Minimization-with-Z-Score-Gradient-Filtering"
MOVED = "move_back_from_momentumAscent() at the end"

ROWS = [
    Row("friendly_sam", "nblt/F-SAM", f_sam, ours(methods.friendly_sam)),
    Row(
        "vasso",
        "BingcongLi/VaSSO",
        vasso({}),
        our_vasso,
        "their registry",
        "1e-7 in their denominator",
    ),
    Row(
        "vasso",
        "BingcongLi/VaSSO",
        vasso({1e-7: 0.0}),
        our_vasso,
        "their registry; 1e-7 is 0",
    ),
    Row(
        "gcsam",
        CENTRED,
        gcsam(norm_after=False, descent_too=False),
        our_gcsam,
        remark="theirs takes the norm before centring, and descends without centring",
        network=convnet,
    ),
    Row(
        "gcsam, ascent only",
        CENTRED,
        gcsam(norm_after=True, descent_too=False),
        ours(custom(filter=filters.centred), rho=0.1),
        "norm after centring; ours from parts, without the descent's centring",
        network=convnet,
    ),
    Row(
        "gcsam",
        CENTRED,
        gcsam(norm_after=True, descent_too=True),
        our_gcsam,
        "norm after centring, second gradient centred",
        network=convnet,
    ),
    Row(
        "zsharp",
        Z,
        zsharp,
        our_zsharp,
        remark="theirs has a ball of radius rho for each matrix, and biases unfiltered",
    ),
    Row(
        "zsharp, a ball per matrix",
        Z,
        zsharp,
        per_matrix,
        "a network without biases; ours from parts",
        network=without_biases,
    ),
    Row(
        "zsharp",
        Z,
        zsharp,
        our_zsharp,
        "a network of one matrix",
        network=one_matrix,
    ),
    Row("momentum_sam", "MarlonBecker/MSAM", msam(0.0), our_momentum(0.0), MOVED),
    Row(
        "momentum_sam, decay_in_ascent",
        "MarlonBecker/MSAM",
        msam(0.05),
        our_momentum(0.05),
        "weight decay 0.05",
        "theirs decays the perturbed weights; ours does with decay_in_ascent=True",
    ),
    Row(
        "momentum_sam, AdamW",
        "MarlonBecker/MSAM",
        adamw_msam,
        our_adamw,
        f"{MOVED}; lr=0.01",
    ),
]
