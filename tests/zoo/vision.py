"""Models of the packages timm and torchvision, tiny and untrained."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from tests.zoo.case import Case, images, uneven

#: A batch and a smaller one.
BATCHES = [images(4), images(3)]

#: For those that normalise over so few numbers that rounding grows.
LARGER = [images(5, 64), images(4, 64)]


def from_timm(name: str, **options: Any) -> Case:
    import timm

    return Case(timm.create_model(name, num_classes=3, **options), BATCHES, uneven)


def mixer() -> Case:
    from timm.models.mlp_mixer import MlpMixer

    model = MlpMixer(
        3, 32, patch_size=8, num_blocks=2, embed_dim=16, drop_path_rate=0.3
    )
    return Case(model, BATCHES, uneven)


def mobilenet_v3() -> Case:
    from torchvision.models import mobilenet_v3_small

    return Case(mobilenet_v3_small(num_classes=3), BATCHES, uneven)


def densenet() -> Case:
    from torchvision.models import DenseNet

    blocks: Any = (2, 2)
    model = DenseNet(
        4, blocks, num_init_features=8, drop_rate=0.2, memory_efficient=True
    )
    return Case(model, BATCHES, uneven)


def googlenet() -> Case:
    from torchvision.models import GoogLeNet

    def loss(output: tuple[Tensor, ...]) -> Tensor:
        main, second, first = (uneven(y) for y in output)
        return main + 0.3 * second + 0.3 * first

    return Case(GoogLeNet(num_classes=3, init_weights=False), LARGER, loss)


VISION = {
    "timm: ResNet-10": partial(from_timm, "resnet10t", drop_path_rate=0.3),
    "timm: ViT, drop path": partial(
        from_timm,
        "vit_tiny_patch16_224",
        img_size=32,
        depth=3,
        drop_path_rate=0.4,
        proj_drop_rate=0.1,
    ),
    "timm: ConvNeXt": partial(from_timm, "convnext_atto", drop_path_rate=0.3),
    # The lite models are so deep that they magnify rounding.
    "timm: EfficientNet, drop path": partial(
        from_timm, "test_efficientnet", drop_path_rate=0.4, drop_rate=0.2
    ),
    "timm: NFNet": partial(from_timm, "test_nfnet"),
    "timm: ViT, some patches": partial(
        from_timm, "test_vit4", img_size=32, patch_drop_rate=0.3
    ),
    "timm: MLP-Mixer": mixer,
    "timm: Swin": partial(
        from_timm,
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 2),
    ),
    "torchvision: MobileNet-v3": mobilenet_v3,
    "torchvision: DenseNet, checkpointed": densenet,
    "torchvision: GoogLeNet": googlenet,
}
