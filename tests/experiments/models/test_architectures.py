"""The networks against the papers' figures and against other implementations."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from flatmin.experiments.models import (
    MODELS,
    build,
    pyramidnet,
    resnet_cifar,
    shake_shake,
    small_convnet,
    wide_resnet,
)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def randomised(model: nn.Module) -> nn.Module:
    """Float64, statistics and affine parameters of BatchNorm away from 0 and 1."""
    draw = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor, generator=draw)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2, generator=draw)
    return model.double()


def images(size: int = 8, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, size, size, generator=draw).double()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet-20", 269_722),
        ("resnet-32", 464_154),
        ("wrn-16-8", 10_961_370),
        ("wrn-28-10", 36_479_194),
        ("wrn-40-2", 2_243_546),
        ("wrn-40-10-no-bn", 55_828_300),
        ("shake-shake-26-2x96d", 26_192_922),
        ("pyramidnet-110", 28_485_477),
        ("pyramidnet-110-shakedrop", 28_485_477),
        ("pyramidnet-272", 26_049_562),
        ("pyramidnet-272-shakedrop", 26_049_562),
    ],
)
def test_parameters_are_those_of_the_docstring_and_the_paper(
    name: str, count: int
) -> None:
    with torch.device("meta"):
        assert parameters(build(name, classes=10)) == count
    if (printed := MODELS[name].millions) is not None:
        # The paper prints 28.3 for a network that its formula gives 28.5 million.
        off = 0.2 if name == "pyramidnet-110" else 0
        assert round(count / 1e6 - off, 2 if printed < 1 else 1) == printed


@pytest.mark.parametrize(
    ("name", "alpha", "kernels", "factor"),
    [("pyramidnet-110", 270, (3, 3), 1), ("pyramidnet-272", 200, (1, 3, 1), 4)],
)
def test_channels_of_a_pyramidnet_follow_its_formula(
    name: str, alpha: int, kernels: tuple[int, ...], factor: int
) -> None:
    blocks = 90 if factor == 4 else 54
    count, inputs = 27 * 16 + 2 * 16, 16
    for k in range(1, blocks + 1):
        width = 16 + alpha * k // blocks
        sizes = [inputs, *[width] * (len(kernels) - 1), factor * width]
        for kernel, a, b in zip(kernels, sizes[:-1], sizes[1:], strict=True):
            count += 2 * a + kernel**2 * a * b
        count += 2 * factor * width
        inputs = factor * width
    count += 2 * inputs + 10 * inputs + 10
    with torch.device("meta"):
        assert parameters(build(name, classes=10)) == count


def test_every_name_has_a_count_tested() -> None:
    assert len(MODELS) == 11


def test_rounded_channels_make_the_sam_codes_pyramidnet() -> None:
    with torch.device("meta"):
        model = build("pyramidnet-272", classes=10, rounded=True)
    # As the networks of the same name in pytorchcv and in the SAM code.
    assert parameters(model) == 26_210_842


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_channels_are_what_was_asked_for(name: str) -> None:
    with torch.device("meta"):
        model = build(name, classes=7, channels=1).eval()
        assert model(torch.empty(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize("size", [8, 9, 28, 31])
@pytest.mark.parametrize(
    "model",
    [
        resnet_cifar(8, 5),
        wide_resnet(10, 1, 5),
        wide_resnet(10, 1, 5, batch_norm=False),
        shake_shake(8, 4, 5),
        pyramidnet(8, 5, bottleneck=False, alpha=10),
        pyramidnet(11, 5, bottleneck=True, alpha=10, shakedrop=True),
    ],
    ids=["resnet", "wrn", "wrn without norm", "shake", "pyramid", "bottleneck"],
)
def test_images_of_any_size_are_taken(model: nn.Module, size: int) -> None:
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize("depth", [0, 8, 12, 31])
def test_a_depth_that_does_not_exist_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth 6 k \+ 4, got {depth}. The smallest"):
        wide_resnet(depth, 1, 10)
    with pytest.raises(ValueError, match=rf"depth 9 k \+ 2, got {depth}. .* is 11"):
        pyramidnet(depth, 10, bottleneck=True)


def test_initial_weights_are_those_of_the_sam_code() -> None:
    torch.manual_seed(0)
    model = wide_resnet(10, 10, classes=100)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.weight[0, 0].numel()
            var = module.weight.var().item()
            # A variance of n numbers is off by sqrt(2 / n); five times that.
            off = 5 * (2 / module.weight.numel()) ** 0.5
            assert var == pytest.approx(2 / fan_out, rel=off)
    last = model[-1]
    assert isinstance(last, nn.Linear)
    assert last.bias.count_nonzero() == 0
    assert last.weight.abs().max() <= 0.1
    # The largest of 64,000 uniform numbers is this close to the bound.
    assert last.weight.abs().max() > 0.0999


def test_the_small_convnets_state_is_as_it_was() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [
        [f"{k}.weight", *(f"{k + 1}.{name}" for name in norm)] for k in (0, 3, 7, 10)
    ]
    names = [name for block in blocks for name in block]
    state = small_convnet(3, 10, 4).state_dict()
    assert list(state) == [*names, "15.weight", "15.bias"]


class TorchvisionBlocks(nn.Module):
    """ResNet for CIFAR from torchvision's blocks, option A written with matrices."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages = [
            BasicBlock(
                width * 2 ** (s - (s > 0 and k == 0)),
                width * 2**s,
                2 if s > 0 and k == 0 else 1,
                OptionA(width * 2**s) if s > 0 and k == 0 else None,
            )
            for s in range(3)
            for k in range(blocks)
        ]
        self.blocks = nn.Sequential(*stages)
        self.last = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.last(x.mean((2, 3)))


class OptionA(nn.Module):
    """A 1x1 convolution of stride 2 whose matrix is the identity above zeros."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        eye = torch.eye(self.outputs, x.shape[1], dtype=x.dtype)
        return F.conv2d(x, eye[:, :, None, None], stride=2)


def aligned(model: nn.Module, other: nn.Module) -> None:
    """Give ``other`` the state of ``model``, entry by entry in order."""
    state = list(model.state_dict().values())
    names = list(other.state_dict())
    other.load_state_dict(dict(zip(names, state, strict=True)))


@pytest.mark.parametrize("width", [16, 24])
def test_resnet_is_torchvisions_blocks_with_option_a(width: int) -> None:
    model = randomised(resnet_cifar(20, 10, width=width))
    other = TorchvisionBlocks(3, width).double()
    aligned(model, other)
    for mode in (True, False):
        model.train(mode)
        other.train(mode)
        torch.testing.assert_close(model(images()), other(images()))


def test_a_stem_with_a_stride_takes_every_second_pixel_of_the_paper_s() -> None:
    small, whole = (resnet_cifar(8, 10, stem_stride=stride) for stride in (2, 1))
    small.double().load_state_dict(randomised(whole).state_dict())
    every_second = whole[0](images())[:, :, ::2, ::2]
    torch.testing.assert_close(small[0](images()), every_second)
    assert str(small[1:]) == str(whole[1:])


def test_option_a_keeps_every_second_pixel_and_adds_zeros() -> None:
    block = resnet_cifar(8, 10)[4]
    for p in block.parameters():
        nn.init.zeros_(p)
    x = torch.arange(1.0, 1 + 16 * 9).reshape(1, 16, 3, 3)
    out = block.eval()(x)
    assert out.shape == (1, 32, 2, 2)
    assert torch.equal(
        out[0, :16], x[0, :, [0, 0, 2, 2], [0, 2, 0, 2]].reshape(16, 2, 2)
    )
    assert out[0, 16:].count_nonzero() == 0


def weights(model: nn.Module) -> Iterator[Tensor]:
    return iter([w for name, w in model.state_dict().items() if "tracked" not in name])


def normed(x: Tensor, state: Iterator[Tensor]) -> Tensor:
    """BatchNorm in eval() mode, by its definition."""
    gamma, beta, mean, var = (next(state)[:, None, None] for _ in range(4))
    return gamma * (x - mean) / (var + 1e-5).sqrt() + beta


def test_wide_resnet_by_hand() -> None:
    model = randomised(wide_resnet(10, 2, 5)).eval()
    state = weights(model)
    x = F.conv2d(images(), next(state), padding=1)
    for stride in (1, 2, 2):
        a = F.relu(normed(x, state))
        h = F.conv2d(a, next(state), stride=stride, padding=1)
        h = F.conv2d(F.relu(normed(h, state)), next(state), padding=1)
        x = h + F.conv2d(a, next(state), stride=stride)
    x = F.relu(normed(x, state)).mean((2, 3))
    expected = F.linear(x, next(state), next(state))
    torch.testing.assert_close(model(images()), expected)


def test_shake_shake_by_hand() -> None:
    model = randomised(shake_shake(8, 4, 5)).eval()
    state = weights(model)
    x = normed(F.conv2d(images(), next(state), padding=1), state)
    for stride in (1, 2, 2):
        branches = []
        for _ in range(2):
            h = F.conv2d(F.relu(x), next(state), stride=stride, padding=1)
            h = F.relu(normed(h, state))
            branches.append(normed(F.conv2d(h, next(state), padding=1), state))
        even, odd = next(state), next(state)
        a, b = F.relu(x), torch.zeros_like(x)
        b[:, :, 1:, 1:] = a[:, :, :-1, :-1]
        skip = [
            F.conv2d(t[:, :, ::stride, ::stride], w) for t, w in ((a, even), (b, odd))
        ]
        x = normed(torch.cat(skip, 1), state) + sum(branches) / 2
    expected = F.linear(F.relu(x).mean((2, 3)), next(state), next(state))
    torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_pyramidnet_by_hand(bottleneck: bool) -> None:
    depth = 11 if bottleneck else 8
    model = randomised(pyramidnet(depth, 5, bottleneck=bottleneck, alpha=10)).eval()
    state = weights(model)
    x = normed(F.conv2d(images(), next(state), padding=1), state)
    # 16 + 10 / 3, 16 + 20 / 3, 16 + 30 / 3, rounded down.
    for width, stride in ((19, 1), (22, 2), (26, 2)):
        h = normed(x, state)
        if bottleneck:
            h = F.relu(normed(F.conv2d(h, next(state)), state))
        h = F.conv2d(h, next(state), stride=stride, padding=1)
        h = F.relu(normed(h, state))
        assert h.shape[1] == width
        h = normed(F.conv2d(h, next(state), padding=0 if bottleneck else 1), state)
        skip = F.avg_pool2d(x, stride)
        zeros = torch.zeros(len(x), h.shape[1] - x.shape[1], *skip.shape[2:])
        x = h + torch.cat([skip, zeros], 1)
    x = F.relu(normed(x, state)).mean((2, 3))
    expected = F.linear(x, next(state), next(state))
    torch.testing.assert_close(model(images()), expected)


def test_without_batchnorm_nothing_depends_on_the_batch() -> None:
    model = wide_resnet(16, 1, 5, batch_norm=False).double()
    kinds = {type(m).__name__ for m in model.modules()}
    assert not any("Norm" in kind for kind in kinds)
    assert not list(model.buffers())
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    alone = torch.cat([model(x[None]) for x in images()])
    torch.testing.assert_close(model(images()), alone)


def test_without_batchnorm_a_deep_network_begins_as_its_shortcuts() -> None:
    model = wide_resnet(40, 1, 5, batch_norm=False).double()
    skips = [w for name, w in model.state_dict().items() if "shortcut" in name]
    x = F.conv2d(images(), model[0].get_parameter("weight"), padding=1)
    for stride, skip in zip((2, 2), skips, strict=True):
        x = F.conv2d(F.relu(x), skip, stride=stride)
    expected = model[-1](F.relu(x).mean((2, 3)))
    torch.testing.assert_close(model(images()), expected)


def test_without_batchnorm_by_hand() -> None:
    model = wide_resnet(10, 2, 5, batch_norm=False).double()
    draw = torch.Generator().manual_seed(2)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3, generator=draw)
    state = weights(model)
    x = F.conv2d(images(), next(state), padding=1)
    for stride in (1, 2, 2):
        a, scale = F.relu(x), next(state)
        h = F.conv2d(a, next(state), next(state), stride=stride, padding=1)
        h = F.conv2d(F.relu(h), next(state), next(state), padding=1)
        x = scale * h + F.conv2d(a, next(state), stride=stride)
    expected = F.linear(F.relu(x).mean((2, 3)), next(state), next(state))
    torch.testing.assert_close(model(images()), expected)


def test_without_batchnorm_every_branch_learns_from_the_first_step() -> None:
    torch.manual_seed(0)
    model = wide_resnet(16, 1, 5, batch_norm=False)
    F.cross_entropy(model(images().float()), torch.tensor([0, 1, 2])).backward()
    scales = [p.grad for name, p in model.named_parameters() if name.endswith("scale")]
    assert len(scales) == 6
    assert all(g is not None and g.abs() > 1e-8 for g in scales)
