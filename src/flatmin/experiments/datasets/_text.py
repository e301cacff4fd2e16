"""Sentences and their sentiment, in the word pieces of BERT's vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._fetch import Remote, damaged, fetch, reading
from flatmin.experiments.datasets._types import DataSet, Parts, Sentences, data_set
from flatmin.experiments.errors import without_transformers

_HOME = (
    "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/"
    "master/data/SST2"
)

#: Sentences to train on, to validate on and to test on.
_SST2 = (
    Remote(f"{_HOME}/train.tsv", "c6150a821d5effe356ec872c2b95855c"),
    Remote(f"{_HOME}/dev.tsv", "3f2a9a844576f2b5a7aeeac2ccbab1c7"),
    Remote(f"{_HOME}/test.tsv", "f8f49ee1b37ec68b0e8977fbe33761e2"),
)

#: The pieces of bert-base-uncased, one per line, which MiniLM shares.
_VOCABULARY = Remote(
    "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt",
    "64800d5d8528ce344256daf115d4965e",
)

#: How many pieces there are.
VOCABULARY = 30_522

#: The classes, by label.
_SENTIMENTS = ("negative", "positive")

#: The pieces that begin and end a sentence.
_BEGIN, _END = 101, 102

#: Training sentences that are made up; there are half as many to test on.
_MADE_UP = 24


def sst2(folder: Path) -> Parts:
    """Read the sentences of film reviews that are clearly negative or positive.

    ``train.tsv``, ``dev.tsv`` and ``test.tsv`` have a sentence and its label, 0 or 1,
    in each line, with a tab between them; ``vocab.txt`` has the word pieces. Files that
    are not in ``folder`` are downloaded.
    """
    fetch("SST-2", [*_SST2, _VOCABULARY], folder)
    train, held, test = (
        _read(folder / file.name, folder / _VOCABULARY.name) for file in _SST2
    )
    split = f"the {len(test.y):,} sentences that are published for tests"
    return Parts(train, test, _SENTIMENTS, split, held)


def _read(path: Path, vocabulary: Path) -> Sentences:
    with reading(path):
        rows = [line.rpartition("\t") for line in path.read_text("utf-8").splitlines()]
    texts, labels = [row[0] for row in rows], [row[2] for row in rows]
    if not rows or not {*labels} <= {"0", "1"}:
        raise damaged(path, "a line is not a sentence, a tab, and 0 or 1")
    return Sentences(pieces(texts, vocabulary), torch.tensor([*map(int, labels)]))


def pieces(texts: list[str], vocabulary: Path) -> Tensor:
    """Cut texts into word pieces, in lower case and without accents.

    Args:
        texts: any.
        vocabulary: a file with one piece per line.

    Returns:
        Their lines in the vocabulary ``[n, longest]``, int64, counted from 0, with a
        piece for the beginning and one for the end. 0 fills up shorter texts.

    Raises:
        BadInput: transformers is not installed, or the vocabulary is damaged.
    """
    try:
        from tokenizers import BertWordPieceTokenizer
    except ImportError:
        raise without_transformers("sentences") from None
    with reading(vocabulary):
        cut = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        found = cut.encode_batch(texts)
    return pad_sequence([torch.tensor(one.ids) for one in found], batch_first=True)


def sentences_of(data: DataSet, experiment: Experiment) -> DataSet:
    """Return the data with sentences of at most ``tokens`` pieces.

    Longer sentences lose what comes before their last piece, which marks their end.
    """
    most = experiment.tokens
    assert most is not None
    named = {"train": data.train, "test": data.test, "validation": data.validation}
    cut = {k: _cut(s, most) for k, s in named.items() if isinstance(s, Sentences)}
    return replace(data, **cut)


def _cut(split: Sentences, most: int) -> Sentences:
    if split.x.shape[1] <= most:
        return split
    x = split.x[:, :most].clone()
    longer = split.x[:, most] != 0
    last = (split.x != 0).sum(1, keepdim=True) - 1
    x[longer, -1] = split.x.gather(1, last)[longer, 0]
    return Sentences(x, split.y)


def made_up_sentences(experiment: Experiment, n: int = _MADE_UP) -> DataSet:
    """Make sentences of random pieces, always the same; each class has its own pieces.

    Args:
        experiment: how long sentences are, at most.
        n: to train on.
    """
    most, seed = experiment.tokens or 8, Generator().manual_seed(0)
    train, test = (_made_up(k, most, seed) for k in (n, _MADE_UP // 2))
    parts = Parts(train, test, _SENTIMENTS, "made-up sentences", test)
    return data_set(experiment.data, parts, None)


def _made_up(n: int, most: int, seed: Generator) -> Sentences:
    y = torch.arange(n) % len(_SENTIMENTS)
    length = torch.randint(2, most + 1, (n, 1), generator=seed)
    at = torch.arange(most)
    words = 1000 + 100 * y[:, None] + torch.randint(100, (n, most), generator=seed)
    x = torch.where(at < length - 1, words, torch.where(at < length, _END, 0))
    x[:, 0] = _BEGIN
    return Sentences(x, y)
