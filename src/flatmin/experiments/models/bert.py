"""BERT's encoder with one linear layer, to tell sentences apart.

References: Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding. NAACL 2019, arXiv:1810.04805. Mean pooling and the weights of
MiniLM: Reimers, Gurevych. Sentence-BERT. EMNLP 2019, arXiv:1908.10084.
"""

from __future__ import annotations

from torch import Tensor, nn

from flatmin.experiments.datasets import VOCABULARY
from flatmin.experiments.errors import without_transformers

#: Where the encoder is among the parts of `SentenceClassifier`.
_ENCODER = "bert."


class SentenceClassifier(nn.Module):
    r"""Classify the mean of what an encoder returns for the pieces of a sentence.

    .. math::
        \hat y = W \frac{1}{n} \sum_{i=1}^n h_i(x) + b

    ``h_i`` is the last state of piece ``i``. The encoder is that of transformers; its
    attention is written out, because fused attention has no second derivative, which
    measures of sharpness take.

    Args:
        classes: to tell apart.
        layers: of the encoder.
        width: of its states.
        heads: of its attention.
        dropout: share of states and of attention that a pass leaves out.

    Raises:
        BadInput: transformers is not installed.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import SentenceClassifier
        >>> network = SentenceClassifier(classes=2, layers=2, width=128, heads=2)
        >>> network(torch.tensor([[101, 2204, 102, 0], [101, 2919, 3185, 102]])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self, classes: int, layers: int, width: int, heads: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        try:
            from transformers import BertConfig, BertModel
        except ImportError:
            raise without_transformers("networks of sentences") from None
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        config._attn_implementation = "eager"
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map word pieces ``[n, length]``, filled up with 0, to ``[n, classes]``."""
        real = x != 0
        states = self.bert(x, attention_mask=real.long()).last_hidden_state
        share = (real / real.sum(1, keepdim=True)).to(states.dtype)
        return self.head((share[:, None] @ states)[:, 0])

    @staticmethod
    def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return published weights of such an encoder under the names they have here.

        Parts that are not used go: the pooler, and the numbers of positions.
        """
        if any(name.startswith(_ENCODER) for name in state):
            return state
        kept = ("embeddings.", "encoder.")
        return {
            f"{_ENCODER}{name}": x
            for name, x in state.items()
            if name.startswith(kept) and x.is_floating_point()
        }


def bert(
    classes: int,
    channels: int = 0,
    *,
    layers: int,
    width: int,
    heads: int,
    dropout: float = 0.1,
) -> SentenceClassifier:
    """Build the network with the arguments of `flatmin.experiments.models.build`.

    Args:
        classes: to tell apart.
        channels: not used: sentences have none.
        layers: as of `SentenceClassifier`.
        width: likewise.
        heads: likewise.
        dropout: likewise.
    """
    del channels
    return SentenceClassifier(classes, layers, width, heads, dropout)
