"""Models of the package transformers, tiny and untrained."""

from __future__ import annotations

from typing import Any

from tests.zoo.case import Case, first, hf, images, normal, tokens

#: What the configurations of most decoders have in common.
DECODER: dict[str, Any] = {
    "vocab_size": 17,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "use_cache": False,
    "attention_dropout": 0.2,
    "pad_token_id": 0,
}
ENCODER = DECODER | {
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
}
#: Sentences, and shorter ones.
TWO = [tokens(2, 9), tokens(3, 5)]

#: From 12 tokens on, the frequencies depend on the longest sentence so far.
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}


def llama() -> Case:
    config = hf(
        "LlamaConfig", **DECODER, max_position_embeddings=12, rope_parameters=DYNAMIC
    )
    lengths = [tokens(2, 9), tokens(3, 20), tokens(2, 5)]
    return Case(hf("LlamaForCausalLM", config), lengths, first)


def gpt_neox() -> Case:
    config = hf(
        "GPTNeoXConfig",
        **DECODER,
        max_position_embeddings=12,
        hidden_dropout=0.2,
        rope_parameters={**DYNAMIC, "partial_rotary_factor": 0.5},
    )
    return Case(hf("GPTNeoXForCausalLM", config), [tokens(2, 20), tokens(3, 5)], first)


def phi3() -> Case:
    longrope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 2.2, 2.4, 2.6],
        "original_max_position_embeddings": 12,
    }
    config = hf(
        "Phi3Config",
        **DECODER,
        resid_pdrop=0.2,
        max_position_embeddings=24,
        original_max_position_embeddings=12,
        rope_parameters=longrope,
    )
    return Case(hf("Phi3ForCausalLM", config), [tokens(2, 20), tokens(3, 5)], first)


def mistral() -> Case:
    config = hf("MistralConfig", **DECODER, num_key_value_heads=1, sliding_window=4)
    return Case(hf("MistralForCausalLM", config), TWO, first)


def qwen2() -> Case:
    config = hf(
        "Qwen2Config", **DECODER, num_key_value_heads=1, tie_word_embeddings=True
    )
    return Case(hf("Qwen2ForCausalLM", config), TWO, first)


def mixtral() -> Case:
    config = hf(
        "MixtralConfig",
        **DECODER,
        num_key_value_heads=1,
        num_local_experts=3,
        router_jitter_noise=0.1,
        experts_implementation="eager",
    )
    return Case(hf("MixtralForCausalLM", config), TWO, first)


def gpt2() -> Case:
    config = hf(
        "GPT2Config",
        vocab_size=17,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        use_cache=False,
    )
    return Case(hf("GPT2LMHeadModel", config), TWO, first)


def bert() -> Case:
    model = hf("BertForMaskedLM", hf("BertConfig", **ENCODER))
    return Case(model, TWO, first)


def distilbert() -> Case:
    config = hf(
        "DistilBertConfig",
        vocab_size=17,
        dim=16,
        hidden_dim=24,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=32,
        sinusoidal_pos_embds=True,
    )
    return Case(hf("DistilBertForMaskedLM", config), TWO, first)


def big_bird() -> Case:
    """Sentences are short: the first pass puts full attention in place of sparse."""
    config = hf(
        "BigBirdConfig",
        **ENCODER,
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=1,
    )
    return Case(hf("BigBirdForMaskedLM", config), [tokens(2, 9), tokens(3, 40)], first)


def big_bird_sparse() -> Case:
    """Each layer seeds NumPy's global stream, and draws its random blocks from it."""
    config = hf(
        "BigBirdConfig",
        **ENCODER,
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=1,
    )
    return Case(hf("BigBirdForMaskedLM", config), [tokens(2, 48), tokens(3, 40)], first)


def t5() -> Case:
    config = hf(
        "T5Config",
        vocab_size=17,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.2,
        use_cache=False,
    )

    def pair(n: int, source: int, target: int) -> Any:
        return tokens(n, source, to=tokens(n, target, name="decoder_input_ids"))

    model = hf("T5ForConditionalGeneration", config)
    return Case(model, [pair(2, 9, 4), pair(3, 5, 6)], first)


def mamba() -> Case:
    config = hf(
        "MambaConfig",
        vocab_size=17,
        hidden_size=8,
        state_size=4,
        num_hidden_layers=2,
        use_cache=False,
    )
    return Case(hf("MambaForCausalLM", config), TWO, first)


def vit() -> Case:
    config = hf(
        "ViTConfig",
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_dropout_prob=0.2,
        image_size=32,
        patch_size=16,
        num_labels=3,
    )
    inputs = [images(4, name="pixel_values"), images(2, name="pixel_values")]
    return Case(hf("ViTForImageClassification", config), inputs, first)


def whisper() -> Case:
    config = hf(
        "WhisperConfig",
        vocab_size=17,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        encoder_layerdrop=0.4,
        decoder_layerdrop=0.4,
        dropout=0.2,
        max_source_positions=10,
        max_target_positions=10,
        apply_spec_augment=True,
        mask_time_length=2,
        mask_time_prob=0.3,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )

    def pair(n: int, length: int) -> Any:
        sound = normal(n, 8, 20, name="input_features")
        return tokens(n, length, "decoder_input_ids", sound=sound)

    model = hf("WhisperForConditionalGeneration", config)
    return Case(model, [pair(2, 6), pair(3, 4)], first)


def wav2vec2() -> Case:
    config = hf(
        "Wav2Vec2Config",
        vocab_size=17,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(4, 3),
        conv_stride=(2, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        layerdrop=0.4,
        mask_time_prob=0.3,
        mask_time_length=2,
    )
    sounds = [normal(2, 90, name="input_values"), normal(3, 60, name="input_values")]
    return Case(hf("Wav2Vec2ForCTC", config), sounds, first)


LANGUAGE = {
    "transformers: Llama, dynamic rope": llama,
    "transformers: GPT-NeoX, dynamic rope": gpt_neox,
    "transformers: Phi-3, longrope": phi3,
    "transformers: Mistral": mistral,
    "transformers: Qwen2": qwen2,
    "transformers: Mixtral": mixtral,
    "transformers: GPT-2": gpt2,
    "transformers: BERT": bert,
    "transformers: DistilBERT": distilbert,
    "transformers: BigBird, short sentences": big_bird,
    "transformers: BigBird, sparse": big_bird_sparse,
    "transformers: T5": t5,
    "transformers: Mamba": mamba,
    "transformers: ViT": vit,
    "transformers: Whisper": whisper,
    "transformers: Wav2Vec2": wav2vec2,
}
