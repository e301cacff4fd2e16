"""Convolutional networks as oneDNN, torch's library for CPUs, runs them fastest.

Tensors stay in its own layout (blocks of channels) between layers, and a convolution,
the BatchNorm after it and the ReLU after that are one operation.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_weights

#: ReLU's slope below zero: far below rounding, but NaN times it is NaN.
_SLOPE = 1e-30

_convolution: Any = torch.ops.mkldnn._convolution_pointwise


class Blocked(nn.Module):
    """What ``model`` does, with its parameters, to a batch of float32 images.

    Only in evaluation mode, on a CPU, and without gradients.

    Args:
        model: from one tensor to one, made of the modules and functions named above.

    Raises:
        ValueError: it has other parts, or hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
            raise ValueError("hooks may change what a module does.")
        self.model = model
        self.blocked = _rewritten(symbolic_trace(model))

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs; by the model itself where numbers overflow."""
        out, marks = self.blocked(x.to_mkldnn())
        out = out.to_dense()
        finite = bool(torch.stack([out.sum(), *marks]).isfinite().all())
        return out if finite else self.model(x)


class _Convolution(nn.Module):
    """A convolution, and BatchNorm and ReLU if they follow it, in one operation."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu: bool) -> None:
        super().__init__()
        if conv.padding_mode != "zeros":
            raise ValueError("oneDNN pads with zeros.")
        self.conv, self.norm = conv, norm
        self.then = ("leaky_relu", [_SLOPE], "") if relu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        conv, w, b = self.conv, self.conv.weight, self.conv.bias
        if (norm := self.norm) is not None:
            moments: Any = norm.running_mean, norm.running_var
            w, b = fuse_conv_bn_weights(
                w, b, *moments, norm.eps, norm.weight, norm.bias
            )
        sizes = conv.padding, conv.stride, conv.dilation
        return _convolution(x, w, b, *sizes, conv.groups, *self.then)


#: oneDNN's ReLU and max pooling turn NaN into a number.
_RELU: set[Any] = {nn.ReLU, F.relu, torch.relu}
_LOSE_NAN: set[Any] = _RELU | {nn.MaxPool2d}
_KEEP_NAN: set[Any] = {
    *(_Convolution, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.Dropout, nn.Flatten),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
    *(operator.add, operator.iadd, torch.add, torch.flatten),
}


def _rewritten(traced: GraphModule) -> GraphModule:
    """The same network with fused convolutions, which returns marks of NaN as well."""
    for node in list(traced.graph.nodes):
        if _kind(traced, node) is nn.Conv2d:
            _fuse(traced, node)
    marks: list[Node] = []
    for node in list(traced.graph.nodes):
        kind = _kind(traced, node)
        if kind in _LOSE_NAN:
            with traced.graph.inserting_before(node):
                marks.append(traced.graph.call_function(_mark, (node.args[0],)))
        elif node.op == "output":
            node.args = ((node.args[0], marks),)
        elif node.op != "placeholder" and kind not in _KEEP_NAN:
            raise ValueError(f"{node} is not known to be right in oneDNN's layout.")
    traced.recompile()
    return traced


def _fuse(traced: GraphModule, node: Node) -> None:
    """Put what follows a convolution into it."""
    conv: Any = traced.get_submodule(str(node.target))
    norm: Any = None
    if norm_node := _only_user(traced, node, {nn.BatchNorm2d}):
        norm = traced.get_submodule(str(norm_node.target))
        _absorb(node, norm_node)
    if relu := _only_user(traced, node, _RELU):
        _absorb(node, relu)
    name = f"{node.name}_fused"
    traced.add_submodule(name, _Convolution(conv, norm, relu is not None))
    node.target = name


def _only_user(traced: GraphModule, node: Node, kinds: set[Any]) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and _kind(traced, users[0]) in kinds else None


def _absorb(node: Node, user: Node) -> None:
    user.replace_all_uses_with(node)
    node.graph.erase_node(user)


def _kind(traced: GraphModule, node: Node) -> Any:
    """A module's type, or the function that is called."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target)))
    return node.target


def _mark(x: Tensor) -> Tensor:
    """A number that is finite only if all of ``x`` is."""
    return (F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x).to_dense().sum()
