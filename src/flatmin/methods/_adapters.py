"""Methods for models whose weights are adapted by low-rank factors (LoRA)."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import radii
from flatmin.core.adapters import AdapterNoise
from flatmin.methods._fit import check_adapters
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def flat_lora(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    **options: Unpack[Options],
) -> SAM:
    r"""Flat-LoRA: add noise around the weights that adapters form; one gradient a step.

    .. math::
        \hat\epsilon_{ij} \sim N(0, \sigma_i^2), \qquad
        \sigma_i = c_t \frac{\rho}{\sqrt{n}} \|W'_{i,:}\|_2, \qquad W' = W + s B A,
        \qquad c_t = \frac{1 - \cos(\pi t / T)}{2}

    is added to the frozen weight W of every LoRA layer that the base trains, n being
    its number of inputs. Then W is restored, bit for bit and in its memory. W' is that
    of the active adapters together. The noise is a function of step and layer: alike
    in all processes, in the micro-batches of a step, and in a resumed run.

    While the pass runs there are two copies of these weights. Layers are those of
    peft: linear ones, GPT-2's transposed ones included. A weight that is no plain
    ``W + s B A`` is refused: quantised or sharded weights, merged or disabled adapters,
    DoRA and the like, and adapters of embeddings and convolutions.

    Differs from the paper: W is restored from a copy and not by subtraction, which
    leaves rounding errors and needs no copy.

    Example:
        >>> import flatmin, peft, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> config = peft.LoraConfig(target_modules=["0"])
        >>> model = peft.get_peft_model(net, config)
        >>> adapters = [p for p in model.parameters() if p.requires_grad]
        >>> base = torch.optim.AdamW(adapters, lr=1e-3)
        >>> optimizer = flatmin.flat_lora(base, model, steps=100)

    Args:
        base: a built optimizer of the adapters.
        model: the module that the loop runs, with its LoRA layers.
        steps: T, of the whole training; the noise grows until its end.
        rho: the standard deviation of the noise in the end, relative to the root mean
            square of each row of W'; 0.05 is the paper's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range; or the model has no LoRA layer that
            the base trains, or one that cannot be perturbed. The state of the adapters
            is checked again in every step.

    Reference: Li, He, Li, Wang, Shang, Huang. Flat-LoRA: Low-Rank Adaptation over a
    Flat Loss Landscape. ICML 2025, arXiv:2409.14396.
    """
    method = AdapterNoise(radii.cosine(0.0, 1.0, steps))
    check_adapters(base, model)
    return SAM(base, model, rho=rho, method=method, **options)
