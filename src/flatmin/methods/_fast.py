"""The method to take where two gradients per step are too much, as measured."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.methods._when import late_subset_sam
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def fast(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    **options: Unpack[Options],
) -> SAM:
    """Return the method that we recommend at about 1.1 gradients per step.

    Today this is `late_subset_sam` with its defaults: the base optimizer alone in the
    first 60 % of the steps, then SAM whose ascent sees a quarter of the batch. The loop
    takes that part with ``x, y = probe.take(x, y)``. The learning rate has to
    decay meanwhile: along a cosine over the whole training, which is what was measured,
    or in these 40 % alone, as `flatmin.schedules.late_cosine` does.

    What is recommended may change with the evidence, in a version whose changelog says
    so. To keep a method, call it by its name. "The price of two gradients" in the
    documentation has the measurements, and the tasks where SAM itself is better.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.fast(base, model, steps=100)
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> for probe in optimizer.probes():
        ...     a, b = probe.take(x, y)
        ...     torch.nn.functional.cross_entropy(model(a), b).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: of the whole training.
        rho: the radius of SAM; 0.05 is the paper's advice.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: that of `late_subset_sam`.
    """
    return late_subset_sam(base, model, steps=steps, rho=rho, **options)
