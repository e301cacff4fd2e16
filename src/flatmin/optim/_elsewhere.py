"""Names that other SAMs and frameworks use, and what to write here instead."""

from __future__ import annotations

from typing import NamedTuple

PAGE = "docs/coming-from.md"


class Elsewhere(NamedTuple):
    """Where an argument of other SAMs has gone.

    Attributes:
        says: a sentence without its first word, which is the argument.
        method: the method to call in place of SAM.
        option: what the argument is called there.
    """

    says: str
    method: str | None = None
    option: str | None = None


_BASE = Elsewhere("is base here, a built optimizer.")
_EPSILON = Elsewhere("has no counterpart: nothing is added to the gradient's norm.")

#: Arguments of other SAMs.
ELSEWHERE = {
    "adaptive": Elsewhere("is flatmin.asam, whose rho is on another scale.", "asam"),
    "base_optim": _BASE,
    "base_optimizer": _BASE,
    "epsilon": _EPSILON,
    "eta": Elsewhere(
        "is flatmin.asam's, whose rho is on another scale.", "asam", "eta"
    ),
    "interval": Elsewhere(
        "is k of flatmin.interval_sam, which multiplies rho by k.", "interval_sam", "k"
    ),
    "num_batch_splits": Elsewhere("is one probes(accumulate=True) loop for each part."),
    "optim": _BASE,
    "optimizer": _BASE,
    "params": Elsewhere("are given to base, a built optimizer."),
    "perturb_eps": _EPSILON,
    "use_gc": Elsewhere("is flatmin.gcsam.", "gcsam"),
}

LOOP = """
    for probe in optimizer.probes():
        loss = loss_function(model(x), y)
        loss.backward()
    optimizer.step()
"""

#: Attributes of other SAMs, and the lines that take their place.
ATTRIBUTES = {
    **dict.fromkeys(("first_step", "second_step", "ascent_step", "descent_step"), LOOP),
    "base_optimizer": "\n    optimizer.base\n",
    "set_closure": "\n    loss = optimizer.step(closure)\n",
}


class Framework(NamedTuple):
    """A framework that builds an optimizer from its class.

    Attributes:
        name: as it is usually written.
        write: what to write for it.
    """

    name: str
    write: str


_LIGHTNING = Framework(
    "Lightning",
    """Write
    from flatmin.integrations.lightning import SharpnessAware
    class Net(SharpnessAware, LightningModule):
        def configure_optimizers(self):
            base = torch.optim.SGD(self.parameters(), lr=...)
            return flatmin.SAM(base, self)
More: docs/frameworks.md""",
)

#: Frameworks by the package that makes the call.
FRAMEWORKS = {
    "fastai": Framework(
        "fastai",
        """Write
    from flatmin.integrations.fastai import SharpnessAware
    base = partial(OptimWrapper, opt=torch.optim.SGD)
    learn = Learner(dls, model, opt_func=base, cbs=SharpnessAware(rho=0.05))
More: docs/frameworks.md""",
    ),
    "lightning": _LIGHTNING,
    "pytorch_lightning": _LIGHTNING,
    "skorch": Framework(
        "skorch",
        """Write
    from flatmin.integrations.skorch import SharpnessAware
    class Net(SharpnessAware, NeuralNetClassifier): ...
    net = Net(module, optimizer=torch.optim.SGD, optimizer__rho=0.05)
More: docs/frameworks.md""",
    ),
    "timm": Framework(
        "timm",
        """Write
    base = timm.optim.create_optimizer_v2(model, opt="sgd", lr=...)
    optimizer = flatmin.SAM(base, model)
More: docs/frameworks.md""",
    ),
    "transformers": Framework(
        "Transformers",
        """Write
    from flatmin.integrations.transformers import SharpnessAwareTrainer
    trainer = SharpnessAwareTrainer(model, args, rho=0.05)
More: docs/frameworks.md""",
    ),
}
