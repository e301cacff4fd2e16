"""Models of the package transformers that mask, sample or quantise what they see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.zoo.case import Case, first, hf, images, normal, tokens
from tests.zoo.language import DECODER, ENCODER, TWO

#: What the configurations of small vision models have in common.
PATCHES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def own(output: Any) -> Tensor:
    """The loss that the model computes."""
    return output.loss


def patch_tst() -> Case:
    config = hf(
        "PatchTSTConfig",
        num_input_channels=2,
        context_length=16,
        patch_length=4,
        patch_stride=4,
        d_model=8,
        num_attention_heads=2,
        ffn_dim=12,
        num_hidden_layers=2,
        random_mask_ratio=0.4,
        do_mask_input=True,
        attention_dropout=0.1,
    )
    series = [normal(n, 16, 2, name="past_values") for n in (3, 2)]
    return Case(hf("PatchTSTForPretraining", config), series, own)


def informer() -> Case:
    config = hf(
        "InformerConfig",
        prediction_length=4,
        context_length=12,
        lags_sequence=[1, 2],
        num_time_features=1,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_layerdrop=0.2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
    )

    def make(n: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: {
            "past_values": torch.randn(n, 14),
            "past_time_features": torch.randn(n, 14, 1),
            "past_observed_mask": torch.ones(n, 14),
            "future_values": torch.randn(n, 4),
            "future_time_features": torch.randn(n, 4, 1),
        }

    return Case(hf("InformerForPrediction", config), [make(3), make(2)], own)


def masked_autoencoder() -> Case:
    config = hf(
        "ViTMAEConfig",
        **PATCHES,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=12,
    )
    batches = [images(n, name="pixel_values") for n in (3, 2)]
    return Case(hf("ViTMAEForPreTraining", config), batches, own)


def dino_v3() -> Case:
    config = hf("DINOv3ViTConfig", **PATCHES, drop_path_rate=0.3)
    batches = [images(3, name="pixel_values"), images(2, 48, name="pixel_values")]
    return Case(hf("DINOv3ViTModel", config), batches, first)


def encodec() -> Case:
    config = hf(
        "EncodecConfig",
        num_filters=4,
        hidden_size=8,
        upsampling_ratios=[2, 2],
        codebook_size=8,
        codebook_dim=8,
        num_lstm_layers=1,
        target_bandwidths=[24.0],
    )
    sounds = [normal(n, 1, 20 * n, name="input_values") for n in (2, 3)]
    model = hf("EncodecModel", config)
    return Case(model, sounds, lambda output: output.audio_values.square().mean())


def deepseek() -> Case:
    config = hf(
        "DeepseekV3Config",
        **DECODER,
        num_key_value_heads=2,
        q_lora_rank=4,
        kv_lora_rank=4,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=8,
        first_k_dense_replace=1,
    )
    # The router computes in single precision.
    return Case(hf("DeepseekV3ForCausalLM", config), TWO, first, dtype=torch.float32)


def modern_bert() -> Case:
    special = {f"{kind}_token_id": 1 for kind in ("bos", "eos", "cls", "sep")}
    config = hf(
        "ModernBertConfig",
        **DECODER | {"num_hidden_layers": 3},
        **special,
        mlp_dropout=0.1,
        embedding_dropout=0.1,
    )
    return Case(hf("ModernBertForMaskedLM", config), TWO, first)


def longformer() -> Case:
    config = hf("LongformerConfig", **ENCODER, attention_window=4)
    # In double precision, its gradients are NaN.
    return Case(hf("LongformerForMaskedLM", config), TWO, first, dtype=torch.float32)


def reformer() -> Case:
    """Seeds the global stream from the system, anew in each forward pass."""
    config = hf(
        "ReformerConfig",
        vocab_size=17,
        hidden_size=16,
        feed_forward_size=24,
        attention_head_size=8,
        num_attention_heads=2,
        attn_layers=["local", "lsh"],
        axial_pos_embds=False,
        max_position_embeddings=32,
        local_attn_chunk_length=4,
        lsh_attn_chunk_length=4,
        num_buckets=4,
        hidden_dropout_prob=0.2,
        is_decoder=True,
        use_cache=False,
    )
    return Case(hf("ReformerModelWithLMHead", config), [tokens(2, 16)], first)


SERIES: dict[str, Callable[[], Case]] = {
    "transformers: PatchTST": patch_tst,
    "transformers: Informer": informer,
    "transformers: ViT-MAE": masked_autoencoder,
    "transformers: DINOv3": dino_v3,
    "transformers: EnCodec": encodec,
    "transformers: DeepSeek-V3": deepseek,
    "transformers: ModernBERT": modern_bert,
    "transformers: Longformer": longformer,
}
