"""A classifier of sentences, against BERT of transformers and a mean by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import SentenceClassifier, build
from flatmin.experiments.models.registry import READERS

X = torch.tensor([[101, 2204, 3185, 102], [101, 2919, 102, 0]])

#: The parameters of BERT-tiny without its pooler, and a last layer for two classes.
TINY = 4_369_408 + 2 * 128 + 2


def published(pooler: bool = True) -> BertModel:
    """A model such as transformers saves it."""
    torch.manual_seed(3)
    config = BertConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
    )
    return BertModel(config, add_pooling_layer=pooler).eval()


def file_of(model: BertModel, folder: Path) -> Path:
    numbers = torch.arange(512)[None]  # As older files have them.
    path = folder / "model.safetensors"
    save_file({**model.state_dict(), "embeddings.position_ids": numbers}, path)
    return path


def means(model: BertModel, x: Tensor) -> Tensor:
    """The mean state of each sentence, one sentence at a time, without fillers."""
    rows = []
    with torch.no_grad():
        for row in x:
            states = model(row[row != 0][None]).last_hidden_state[0]
            rows.append(sum(states) / len(states))
    return torch.stack(rows)


def test_published_weights_classify_the_mean_of_the_states(tmp_path: Path) -> None:
    model = published()
    network = build("bert-tiny", 2, 0, str(file_of(model, tmp_path))).eval()
    assert isinstance(network, SentenceClassifier)
    assert not network.head.weight.any()
    with torch.no_grad():
        network.head.weight.normal_()
        found = network(X)
        expected = means(model, X) @ network.head.weight.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_its_own_weights_come_back_with_the_last_layer(tmp_path: Path) -> None:
    first = build("bert-tiny", 2, 0).eval()
    save_file(first.state_dict(), tmp_path / "own.safetensors")
    again = build("bert-tiny", 2, 0, str(tmp_path / "own.safetensors")).eval()
    assert torch.equal(first(X), again(X))
    other = build("bert-tiny", 3, 0, str(tmp_path / "own.safetensors")).eval()
    assert torch.equal(other(X), torch.zeros(2, 3))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    path = file_of(published(), tmp_path)
    with pytest.raises(BadInput, match=r"weights of another network: bert\.embeddings"):
        build("minilm-l6", 2, 0, str(path))


def test_fillers_change_nothing() -> None:
    network = build("bert-tiny", 2, 0).eval()
    longer = nn.functional.pad(X, (0, 9))
    torch.testing.assert_close(network(longer), network(X), rtol=1e-4, atol=1e-5)


def test_it_has_second_derivatives() -> None:
    network = build("bert-tiny", 2, 0, width=8).double().eval()
    weights = list(network.parameters())
    loss = network(X).square().sum()
    first = torch.autograd.grad(loss, weights, create_graph=True)
    norm = torch.stack([g.square().sum() for g in first]).sum()
    second = torch.autograd.grad(norm, weights, allow_unused=True)
    assert any(g is not None and bool(g.any()) for g in second)


def test_the_parameters_are_those_of_the_papers() -> None:
    tiny = build("bert-tiny", 2, 0)
    assert sum(p.numel() for p in tiny.parameters()) == TINY
    # Turc et al. count 4.4 millions.
    assert READERS["bert-tiny"].millions == pytest.approx(TINY / 1e6, abs=0.05)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(BadInput, match=r"cannot build bert-tiny: .*\b3\b"):
        build("bert-tiny", 2, 0, heads=3)


def test_without_network_one_line_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput) as refused:
        build("minilm-l6", 2, 0)
    said = str(refused.value)
    assert said.startswith("the pretrained weights of minilm-l6 cannot be had (")
    assert said.endswith("To start from scratch, write none in its place.")
    assert "\n" not in said


def test_what_the_hub_has_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []
    torch.manual_seed(0)
    small = build("minilm-l6", 2, 0, "none", layers=1)
    save_file(small.state_dict(), tmp_path / "model.safetensors")

    def downloaded(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", downloaded)
    found = build("minilm-l6", 2, 0, layers=1)
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", "model.safetensors")]
    for name, w in found.state_dict().items():
        assert torch.equal(w, small.state_dict()[name])


def test_without_transformers_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match=r"pip install 'flatmin\[transformers\]'"):
        build("bert-tiny", 2, 0)
