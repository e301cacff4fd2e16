"""Packages of layers and losses, each inside of a small model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, images, normal, uneven


class Around(nn.Module):
    """A layer between two others."""

    def __init__(self, inner: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, width), nn.Linear(width, 3)
        self.drop = nn.Dropout(0.2)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.drop(self.before(x))))


class Rotated(nn.Module):
    """Attention over one head with rotary embeddings."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        from rotary_embedding_torch import RotaryEmbedding

        self.rotary: Any = RotaryEmbedding(8, **options)
        self.both = options.get("use_xpos", False)
        if self.both:
            # A function is copied, a staticmethod is not.
            plain = self.rotary.apply_rotary_emb.__func__
            self.rotary.apply_rotary_emb = plain
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x)[:, None].chunk(3, dim=-1)
        if self.both:
            q, k = self.rotary.rotate_queries_and_keys(q, k)
        else:
            q, k = map(self.rotary.rotate_queries_or_keys, (q, k))
        return nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.2)[:, 0]


def rotary(**options: Any) -> Case:
    lengths = [normal(2, 9, 4), normal(3, 5, 4), normal(2, 12, 4)]
    return Case(Around(Rotated(cache_max_seq_len=16, **options)), lengths, uneven)


class Quantised(nn.Module):
    """A quantiser whose first output goes on, and whose loss is kept beside it."""

    def __init__(self, quantiser: nn.Module) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, 8), nn.Linear(8, 3)
        self.quantiser = quantiser

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _, loss = self.quantiser(self.before(x))
        return self.after(y), loss.sum()


def quantised(name: str, size: int = 6, **options: Any) -> Case:
    import vector_quantize_pytorch as vq

    quantiser = getattr(vq, name)(dim=8, codebook_size=size, **options)

    def loss(output: tuple[Tensor, Tensor]) -> Tensor:
        return uneven(output[0]) + output[1]

    def trained(name: str) -> bool:
        return "in_place_codebook_optimizer" not in options or "codebook" not in name

    inputs = [normal(3, 9, 4), normal(2, 12, 4)]
    return Case(Quantised(quantiser), inputs, loss, trained)


class Metric(nn.Module):
    """Embeddings, and a loss of them that remembers those of earlier batches."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 5))
        self.loss = loss

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.body(x), labels)


def cross_batch_memory() -> Case:
    from pytorch_metric_learning.losses import CrossBatchMemory, NTXentLoss
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    loss = CrossBatchMemory(
        NTXentLoss(), embedding_size=5, memory_size=12, miner=MultiSimilarityMiner()
    )

    def make(n: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: {"x": torch.randn(n, 4), "labels": torch.randint(0, 3, (n,))}

    return Case(Metric(loss), [make(7), make(8), make(6)], lambda loss: loss)


class Graph(nn.Module):
    """Convolutions over a graph, one of which remembers the normalised edges."""

    def __init__(self, *, cached: bool) -> None:
        super().__init__()
        from torch_geometric.nn import BatchNorm, GATConv, GCNConv

        self.gcn = GCNConv(4, 8, cached=cached)
        self.norm = BatchNorm(8)
        self.gat = GATConv(8, 3, heads=2, dropout=0.2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.gat(self.norm(self.gcn(x, edge_index)).relu(), edge_index)


def graph(*, cached: bool) -> Case:
    def make(n: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: {
            "x": torch.randn(n, 4),
            "edge_index": torch.randint(0, n, (2, 3 * n)),
        }

    # What is cached is of one graph.
    return Case(Graph(cached=cached), [make(9), make(9 if cached else 6)], uneven)


class Counts(nn.Module):
    """Scales by an attribute, and centres by a buffer; both change in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.register_buffer("mean", torch.zeros(8))
        self.calls: int = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        mean = self.mean
        assert isinstance(mean, Tensor)
        mean.mul_(0.9).add_(x.detach().mean((0, 1)), alpha=0.1)
        y = (x - mean.clone()) * self.weight / self.calls
        return torch.nn.functional.dropout(y, 0.2, self.training)


def scripted() -> Case:
    inner = torch.jit.script(Counts())
    return Case(Around(inner), [normal(3, 9, 4), normal(2, 12, 4)], uneven)


def quantisation_aware() -> Case:
    from torch.ao import quantization as q

    body = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU()
    )
    body = q.fuse_modules_qat(body.train(), [["0", "1", "2"], ["3", "4"]])
    model: Any = nn.Sequential(q.QuantStub(), body, nn.Flatten(), nn.Linear(16, 3))
    model.qconfig = q.get_default_qat_qconfig("fbgemm")
    model = q.prepare_qat(model.train())
    inputs = [images(4, 6, name="input"), images(3, 6, name="input")]
    return Case(model, inputs, uneven, dtype=torch.float32)


LAYERS: dict[str, Callable[[], Case]] = {
    "rotary-embedding-torch": rotary,
    "rotary-embedding-torch: xpos": partial(rotary, use_xpos=True),
    "rotary-embedding-torch: learned": partial(rotary, learned_freq=True),
    "vector-quantize-pytorch: means, k-means": partial(
        quantised, "VectorQuantize", kmeans_init=True, threshold_ema_dead_code=2
    ),
    "vector-quantize-pytorch: trains inside": partial(
        quantised,
        "VectorQuantize",
        learnable_codebook=True,
        ema_update=False,
        rotation_trick=False,
        in_place_codebook_optimizer=partial(torch.optim.Adam, lr=0.1),
    ),
    "vector-quantize-pytorch: residual": partial(
        quantised,
        "ResidualVQ",
        num_quantizers=3,
        kmeans_init=True,
        quantize_dropout=True,
    ),
    "vector-quantize-pytorch: free of look-ups": partial(
        quantised, "LFQ", size=16, entropy_loss_weight=0.1, force_quantization_f32=False
    ),
    "vector-quantize-pytorch: transformed": partial(
        quantised, "SimVQ", rotation_trick=False
    ),
    "pytorch-metric-learning: memory": cross_batch_memory,
    "torch-geometric": partial(graph, cached=False),
    "torch-geometric: cached": partial(graph, cached=True),
    "torch.jit.script": scripted,
    "torch.ao: quantisation-aware": quantisation_aware,
}
