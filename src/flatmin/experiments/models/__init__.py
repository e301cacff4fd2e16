"""Networks of the paper's experiments, one file per paper, and any other of timm's."""

from flatmin.experiments.models.mixing import Mixing, true_gradient
from flatmin.experiments.models.pyramidnet import ShakeDrop, pyramidnet
from flatmin.experiments.models.registry import MODELS, SMALL, Entry, build
from flatmin.experiments.models.resnet_cifar import resnet_cifar
from flatmin.experiments.models.shake_shake import ShakeShake, shake_shake
from flatmin.experiments.models.small import small_convnet
from flatmin.experiments.models.wide_resnet import wide_resnet

__all__ = [
    "MODELS",
    "SMALL",
    "Entry",
    "Mixing",
    "ShakeDrop",
    "ShakeShake",
    "build",
    "pyramidnet",
    "resnet_cifar",
    "shake_shake",
    "small_convnet",
    "true_gradient",
    "wide_resnet",
]
