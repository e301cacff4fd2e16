"""Sentences: their pieces by hand, their files, their length, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from flatmin.experiments.config import Experiment, validated
from flatmin.experiments.datasets import (
    SETS,
    DataSet,
    Sentences,
    _text,
    load,
    made_up_images,
    pieces,
    prepared,
)
from flatmin.experiments.datasets._fetch import Remote
from flatmin.experiments.errors import BadInput

#: Enough of BERT's vocabulary, at other lines.
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film",
         "##s", "cafe", "!")  # fmt: skip

PARTS = {
    "train": (6920, "good film{}\t1\n", "bad films\t0\n"),
    "dev": (872, "a good film\t1\n", "a bad film\t0\n"),
    "test": (1821, "films\t1\n", "a film\t0\n"),
}


def text(**fields: object) -> Experiment:
    values = {"data": "sst2", "model": "bert-tiny", "augment": (), "tokens": 64}
    return Experiment.model_validate({**values, **fields})


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def test_pieces_are_those_of_the_vocabulary_by_hand(tmp_path: Path) -> None:
    found = pieces(["Good films", "a Café!", "strange"], vocabulary(tmp_path))
    expected = [[2, 6, 8, 9, 3], [2, 5, 10, 11, 3], [2, 1, 3, 0, 0]]
    assert found.tolist() == expected
    assert found.dtype == torch.int64


def files(folder: Path, **parts: str) -> Path:
    """Files like the published ones, with their checksums."""
    folder.mkdir()
    vocabulary(folder)
    for name, (n, *lines) in PARTS.items():
        whole = "".join(lines[k % 2].format(" !" * (k % 3)) for k in range(n))
        (folder / f"{name}.tsv").write_text(parts.get(name, whole), encoding="utf-8")
    return folder


def remote(path: Path) -> Remote:
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return Remote(f"https://at/{path.name}", md5)


def published(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    rows = tuple(remote(folder / f"{name}.tsv") for name in PARTS)
    monkeypatch.setattr(_text, "_SST2", rows)
    monkeypatch.setattr(_text, "_VOCABULARY", remote(folder / "vocab.txt"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    published(monkeypatch, files(tmp_path / "sst2"))
    return load("sst2", tmp_path)


def sentences(split: object) -> Sentences:
    assert isinstance(split, Sentences)
    return split


def test_the_parts_are_the_published_ones(data: DataSet) -> None:
    source = SETS["sst2"]
    train, test, held = map(sentences, (data.train, data.test, data.validation))
    assert len(train.y) == source.train
    assert len(test.y) == source.test
    assert len(held.y) == source.validation
    assert data.classes == ("negative", "positive")
    # "good film !", padded to the longest, "good film ! !"; then "bad films".
    assert train.x[4].tolist() == [2, 6, 8, 11, 3, 0]
    assert train.x[1].tolist() == [2, 7, 8, 9, 3, 0]
    assert train.y[:4].tolist() == [1, 0, 1, 0]
    assert test.x[0].tolist() == [2, 8, 9, 3]


def test_validation_takes_the_published_part(data: DataSet) -> None:
    held = prepared(data, text(validation=0.1))
    assert torch.equal(held.test.y, sentences(data.validation).y)
    assert len(held.train.y) == 6920
    assert held.split == "the sentences that are published for validation"


def test_long_sentences_keep_their_end(data: DataSet) -> None:
    short = sentences(prepared(data, text(tokens=4)).train)
    assert short.x[4].tolist() == [2, 6, 8, 3]
    assert short.x[1].tolist() == [2, 7, 8, 3]
    exact = sentences(prepared(data, text(tokens=6)).train)
    assert torch.equal(exact.x, sentences(data.train).x)
    assert sentences(data.train).x[4].tolist() == [2, 6, 8, 11, 3, 0]


def test_the_draw_of_training_sentences_keeps_pieces_and_labels_together(
    data: DataSet,
) -> None:
    some = sentences(prepared(data, text(train_examples=50)).train)
    whole = sentences(data.train)
    known = {(*x, y) for x, y in zip(whole.x.tolist(), whole.y.tolist(), strict=True)}
    found = {(*x, y) for x, y in zip(some.x.tolist(), some.y.tolist(), strict=True)}
    assert len(some.y) == 50
    assert found <= known


def test_the_digest_knows_pieces_and_labels(data: DataSet) -> None:
    train = sentences(data.train)
    for other in (
        Sentences(train.x.roll(1), train.y),
        Sentences(train.x, train.y.roll(1)),
    ):
        assert DataSet("sst2", other, data.test, (), (), (), None, "").digest() != (
            data.digest()
        )


@pytest.mark.parametrize(
    "damage",
    ["", "good film\n", "good film\t2\n", "good film\tpositive\n"],
    ids=["empty", "no label", "another label", "a word"],
)
def test_a_file_that_is_not_sentences_and_labels_is_damaged(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, files(tmp_path / "sst2", dev=damage))
    with pytest.raises(BadInput, match=r"dev.tsv is damaged \(a line is not"):
        load("sst2", tmp_path)


def test_a_file_of_another_checksum_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = files(tmp_path / "sst2")
    published(monkeypatch, folder)
    with (folder / "vocab.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(BadInput, match=r"vocab.txt is damaged .its MD5 checksum"):
        load("sst2", tmp_path)


def test_without_transformers_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BadInput, match=r"pip install 'flatmin\[transformers\]'"):
        pieces(["good"], vocabulary(tmp_path))


def test_each_kind_of_data_needs_its_task(data: DataSet) -> None:
    images = Experiment(data="sst2", augment=())
    with pytest.raises(BadInput, match=r"sst2 has sentences. Use --set tokens=64"):
        prepared(data, images)
    with pytest.raises(BadInput, match=r"asks for sentences, and digits has images"):
        made_up_images(text(data="digits"))
    with pytest.raises(BadInput, match=r"asks for sentences, and etth1 is a series"):
        made_up_images(text(data="etth1"))
    forecast = Experiment(data="sst2", augment=(), horizon=3)
    with pytest.raises(BadInput, match=r"asks for a forecast, and sst2 has sentences"):
        prepared(data, forecast)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"augment": ("flip",)}, r"augment=\[\]"),
        ({"mixup": 1.0}, "mixup=null"),
        ({"image_size": 32}, "image_size=null"),
        ({"freeze_norm": True}, "freeze_norm=false"),
        ({"channels_last": True}, "channels_last=false"),
        ({"horizon": 3}, "tokens=null, or horizon=null"),
    ],
)
def test_what_only_images_have_is_refused(fields: dict[str, object], line: str) -> None:
    with pytest.raises(BadInput, match=f"tokens 64.*Use {line}"):
        validated(Experiment, {**text().model_dump(), **fields})


def test_made_up_sentences_are_always_the_same_and_tell_their_class() -> None:
    one, again = made_up_images(text(tokens=12)), made_up_images(text(tokens=12))
    assert one.digest() == again.digest()
    train = sentences(one.train)
    assert train.x.shape == (24, 12)
    inner = train.x[:, 1]
    words = inner[inner >= 1000]
    assert torch.equal((words - 1000) // 100, train.y[inner >= 1000])
    last = (train.x != 0).sum(1) - 1
    assert set(train.x[:, 0].tolist()) == {101}
    assert set(train.x.gather(1, last[:, None]).flatten().tolist()) == {102}
