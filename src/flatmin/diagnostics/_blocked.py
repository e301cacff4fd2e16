"""Convolutional networks as oneDNN, torch's library for CPUs, runs them fastest.

Between layers tensors stay in its own layout, blocks of channels. A convolution, the
BatchNorm after it and the ReLU after that are one operation.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, symbolic_trace
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_weights

from flatmin.diagnostics._hooks import any_hooks

#: The slope of a fused ReLU below zero. A product with it is far below rounding, and
#: NaN stays NaN, which oneDNN's ReLU makes 0.
_SLOPE = 1e-30


class Blocked(nn.Module):
    """A network in evaluation mode on a CPU, without gradients, for float32 images.

    It has the parameters of ``model``, and its buffers. Where numbers overflow,
    ``model`` computes the outputs, because some of oneDNN's operations turn NaN into a
    number.

    Args:
        model: takes one tensor ``[n, channels, height, width]`` and returns one; made
            of the modules and functions in ``_LOSE_NAN`` and ``_KEEP_NAN``.

    Raises:
        ValueError: the model has other parts, or hooks. A model that cannot be traced,
            or has no implementation in this layout, raises torch's own errors, here or
            when it is called.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if any_hooks(model):
            raise ValueError("the model has hooks, which tracing would lose.")
        self.model = model
        self.blocked = _rewritten(symbolic_trace(model))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, in the ordinary layout."""
        blocked, marks = self.blocked(x.to_mkldnn())
        outputs = blocked.to_dense()
        finite = torch.stack([outputs.sum(), *marks]).isfinite().all()
        return outputs if finite else self.model(x)


class _Convolution(nn.Module):
    """A convolution, and the BatchNorm and the ReLU after it, if there are any."""

    def __init__(self, conv: nn.Conv2d, norm: Any, relu: bool) -> None:
        super().__init__()
        if conv.padding_mode != "zeros":
            raise ValueError("oneDNN pads with zeros.")
        self.conv, self.norm = conv, norm
        self.then: Any = ("leaky_relu", [_SLOPE], "") if relu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        w, b = conv.weight, conv.bias
        if norm is not None:
            moments = norm.running_mean, norm.running_var, norm.eps
            w, b = _folded(w, b, *moments, norm.weight, norm.bias)
        convolution: Any = torch.ops.mkldnn._convolution_pointwise
        sizes = conv.padding, conv.stride, conv.dilation, conv.groups
        return convolution(x, w, b, *sizes, *self.then)


#: Not annotated in torch.
_folded: Any = fuse_conv_bn_weights

_RELU: set[Any] = {nn.ReLU, F.relu, torch.relu}

#: Operations that turn NaN into a number in this layout, and those that do not.
_LOSE_NAN: set[Any] = {*_RELU, nn.MaxPool2d}
_KEEP_NAN: set[Any] = {
    *(_Convolution, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.Dropout, nn.Flatten),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
    *(operator.add, torch.add, torch.flatten),
    operator.iadd,  # pyright: ignore[reportUnknownMemberType]
}


def _rewritten(traced: GraphModule) -> GraphModule:
    """The network with fused convolutions; it returns its marks of NaN as well."""
    for node in list(traced.graph.nodes):
        if _kind(node) is nn.Conv2d:
            _fuse(traced, node)
    _mark_all(traced.graph)
    traced.recompile()
    return traced


def _fuse(traced: GraphModule, node: Node) -> None:
    norm = _absorbed(node, {nn.BatchNorm2d})
    relu = _absorbed(node, _RELU)
    conv: Any = _module(node)
    name = f"{node.name}_fused"
    traced.add_submodule(name, _Convolution(conv, norm, relu is not None))
    node.target = name


def _absorbed(node: Node, kinds: set[Any]) -> Any:
    """Return the only operation on the node's result, if it is of such a kind.

    It is taken out of the graph.
    """
    users = list(node.users)
    if len(users) != 1 or _kind(users[0]) not in kinds:
        return None
    users[0].replace_all_uses_with(node)
    node.graph.erase_node(users[0])
    return _module(users[0]) or users[0].target


def _mark_all(graph: Graph) -> None:
    """Make the graph return a mark of every input whose NaN would be lost."""
    marks: list[Node] = []
    for node in list(graph.nodes):
        kind = _kind(node)
        if kind in _LOSE_NAN:
            with graph.inserting_before(node):
                marks.append(graph.call_function(_mark, (node.args[0],)))
        elif node.op == "output":
            node.args = ((node.args[0], marks),)
        elif node.op != "placeholder" and kind not in _KEEP_NAN:
            raise ValueError(f"{node.format_node()} may do something else to NaN.")


def _mark(x: Tensor) -> Tensor:
    """A number that is finite only if all of ``x`` is."""
    return (F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x).to_dense().sum()


def _kind(node: Node) -> Any:
    """The type of the module, or the function."""
    module = _module(node)
    return node.target if module is None else type(module)


def _module(node: Node) -> nn.Module | None:
    owner: Any = node.graph.owning_module
    called = node.op == "call_module"
    return owner.get_submodule(node.target) if called else None
