"""Models that remember, draw, or change something in a way of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, first, hf, normal, tokens, uneven
from tests.zoo.language import DECODER, ENCODER, TWO


def recurrent_gemma() -> Case:
    """Its layers hold the states of the recurrence, and its caches, as attributes."""
    config = hf(
        "RecurrentGemmaConfig",
        **DECODER,
        num_key_value_heads=1,
        lru_width=16,
        attention_window_size=8,
        block_types=["recurrent", "attention"],
    )
    return Case(hf("RecurrentGemmaForCausalLM", config), TWO, first)


def gemma3n() -> Case:
    """Clamps parameters that it trains in each forward pass; has norms in float32."""
    config = hf(
        "Gemma3nTextConfig",
        **DECODER | {"intermediate_size": [24, 24]},
        vocab_size_per_layer_input=17,
        hidden_size_per_layer_input=4,
        num_key_value_heads=1,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        num_kv_shared_layers=0,
        laurel_rank=4,
        altup_coef_clip=120.0,
        activation_sparsity_pattern=[0.5, 0.0],
        sliding_window=4,
    )
    return Case(hf("Gemma3nForCausalLM", config), TWO, first, dtype=torch.float32)


def ibert() -> Case:
    """Notes the range of its activations for quantising them."""
    config = hf("IBertConfig", **ENCODER, quant_mode=True)
    return Case(hf("IBertForMaskedLM", config), TWO, first)


def funnel() -> Case:
    """Its attention structure notes the length of the sentences."""
    config = hf(
        "FunnelConfig",
        vocab_size=17,
        block_sizes=[1, 1],
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=24,
    )
    return Case(hf("FunnelForMaskedLM", config), [tokens(2, 9), tokens(3, 6)], first)


def switch() -> Case:
    """Its router multiplies by random numbers."""
    config = hf(
        "SwitchTransformersConfig",
        vocab_size=17,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_sparse_encoder_layers=1,
        num_decoder_layers=2,
        num_sparse_decoder_layers=1,
        num_heads=2,
        num_experts=3,
        router_jitter_noise=0.1,
        use_cache=False,
    )

    def pair(n: int, source: int, target: int) -> Any:
        return tokens(n, source, to=tokens(n, target, name="decoder_input_ids"))

    model = hf("SwitchTransformersForConditionalGeneration", config)
    # The router computes in single precision.
    inputs = [pair(2, 9, 4), pair(3, 5, 6)]
    return Case(model, inputs, first, dtype=torch.float32)


def xlnet() -> Case:
    config = hf(
        "XLNetConfig",
        vocab_size=17,
        d_model=16,
        n_layer=2,
        n_head=2,
        d_inner=24,
        mem_len=4,
    )
    return Case(hf("XLNetLMHeadModel", config), [tokens(2, 9), tokens(3, 6)], first)


def speech_t5() -> Case:
    """Has a batch norm after the decoder, and spec augment before the encoder."""
    config = hf(
        "SpeechT5Config",
        vocab_size=17,
        hidden_size=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        encoder_layerdrop=0.3,
        decoder_layers=2,
        decoder_ffn_dim=24,
        decoder_attention_heads=2,
        decoder_layerdrop=0.3,
        num_mel_bins=6,
        speech_decoder_prenet_units=8,
        speech_decoder_postnet_units=8,
        speaker_embedding_dim=4,
        use_cache=False,
    )

    def pair(n: int, length: int) -> Any:
        sound = normal(n, 8, 6, name="decoder_input_values")
        voice = normal(n, 4, name="speaker_embeddings")
        return tokens(n, length, sound=sound, voice=voice)

    model = hf("SpeechT5ForTextToSpeech", config)
    return Case(model, [pair(2, 9), pair(3, 6)], first)


def adapted(kind: str, **options: Any) -> Case:
    """A frozen Llama with adapters."""
    import peft

    from tests.zoo.language import llama

    case = llama()
    config = getattr(peft, kind)(target_modules=["q_proj", "v_proj"], **options)
    return case._replace(model=peft.get_peft_model(case.model, config))


class Measured(nn.Module):
    """Measures its output in each pass, as models of Lightning do."""

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics import CatMetric, MeanMetric, MetricCollection

        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
        self.every = MetricCollection({"mean": MeanMetric(), "all": CatMetric()})

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * (1 + self.every(y.detach())["mean"].cos())


def measured() -> Case:
    return Case(Measured(), [normal(5, 4), normal(3, 4)], uneven)


class Memory(nn.Module):
    """A temporal graph network: events change what its nodes remember."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn.models.tgn import (
            IdentityMessage,
            LastAggregator,
            TGNMemory,
        )

        message = IdentityMessage(4, 6, 5)
        self.memory = TGNMemory(7, 4, 6, 5, message, LastAggregator())
        self.head = nn.Linear(6, 3)

    def forward(self, source: Tensor, to: Tensor, t: Tensor, raw: Tensor) -> Tensor:
        remembered, _ = self.memory(torch.arange(7))
        self.memory.update_state(source, to, t, raw)
        again, _ = self.memory(torch.arange(7))
        self.memory.detach()
        return self.head(remembered + again)


def temporal_graph() -> Case:
    def make(n: int, start: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: {
            "source": torch.randint(0, 7, (n,)),
            "to": torch.randint(0, 7, (n,)),
            "t": torch.arange(start, start + n),
            "raw": torch.randn(n, 4),
        }

    events = [make(5, 0), make(3, 5), make(6, 8)]
    return Case(Memory(), events, uneven, dtype=torch.float32)


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of several losses."""
    return torch.stack([*losses.values()]).sum()


def detector() -> Case:
    """Draws the proposals to train on, and the size of the images."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    body: Any = nn.Sequential(nn.Conv2d(3, 6, 3, 8, 1), nn.BatchNorm2d(6), nn.ReLU())
    body.out_channels = 6
    sizes: Any = (32, 40, 48)
    model = FasterRCNN(
        body,
        num_classes=3,
        min_size=sizes,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((0.5, 1.0),)),
        rpn_batch_size_per_image=8,
        rpn_post_nms_top_n_train=16,
        box_batch_size_per_image=8,
    )

    def make(n: int) -> Callable[[], dict[str, Any]]:
        target = {
            "boxes": torch.tensor([[4.0, 4, 20, 22]]),
            "labels": torch.tensor([1]),
        }
        return lambda: {
            "images": [torch.rand(3, 32, 32) for _ in range(n)],
            "targets": [target] * n,
        }

    return Case(model, [make(2), make(1)], total)


UNUSUAL: dict[str, Callable[[], Case]] = {
    "transformers: RecurrentGemma": recurrent_gemma,
    "transformers: Gemma-3n": gemma3n,
    "transformers: I-BERT": ibert,
    "transformers: Funnel": funnel,
    "transformers: Switch": switch,
    "transformers: XLNet": xlnet,
    "transformers: SpeechT5": speech_t5,
    "peft: DoRA": partial(
        adapted,
        "LoraConfig",
        r=2,
        lora_dropout=0.2,
        use_dora=True,
        init_lora_weights=False,
    ),
    "peft: AdaLoRA": partial(adapted, "AdaLoraConfig", total_step=9, tinit=1, tfinal=1),
    "peft: VeRA": partial(adapted, "VeraConfig", r=2, vera_dropout=0.2),
    "torchmetrics": measured,
    "torch-geometric: memory": temporal_graph,
    "torchvision: Faster R-CNN": detector,
}
