"""Networks of the paper's experiments, one file per paper, and all those of timm."""

from flatmin.experiments.models._weights import restore
from flatmin.experiments.models.bert import SentenceClassifier, bert
from flatmin.experiments.models.mixing import Mixing, true_gradient
from flatmin.experiments.models.pyramidnet import ShakeDrop, pyramidnet
from flatmin.experiments.models.registry import (
    FORECASTERS,
    MODELS,
    READERS,
    SCRATCH,
    SMALL,
    Entry,
    build,
    input_size,
    normalisation,
)
from flatmin.experiments.models.resnet_cifar import resnet_cifar
from flatmin.experiments.models.samformer import RevIN, SAMformer
from flatmin.experiments.models.shake_shake import ShakeShake, shake_shake
from flatmin.experiments.models.small import small_convnet
from flatmin.experiments.models.wide_resnet import wide_resnet

__all__ = [
    "FORECASTERS",
    "MODELS",
    "READERS",
    "SCRATCH",
    "SMALL",
    "Entry",
    "Mixing",
    "RevIN",
    "SAMformer",
    "SentenceClassifier",
    "ShakeDrop",
    "ShakeShake",
    "bert",
    "build",
    "input_size",
    "normalisation",
    "pyramidnet",
    "resnet_cifar",
    "restore",
    "shake_shake",
    "small_convnet",
    "true_gradient",
    "wide_resnet",
]
