"""A series: its parts, its windows by hand, its file, and what is refused."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    SETS,
    DataSet,
    Series,
    Windows,
    _series,
    load,
    made_up_images,
    prepared,
)
from flatmin.experiments.datasets._fetch import Remote
from flatmin.experiments.errors import BadInput

#: Informer's hours: 12, 4 and 4 months of 30 days.
TRAIN, HELD, TEST = 8640, 2880, 2880


def forecast(**fields: object) -> Experiment:
    values = {"data": "etth1", "model": "samformer", "augment": (), "horizon": 96}
    return Experiment.model_validate({**values, **fields})


def written(hours: int = TRAIN + HELD + TEST + 60) -> str:
    """A file like the published one: channel ``c`` has ``10000 c + hour``."""
    rows = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"]
    for hour in range(hours):
        numbers = ",".join(f"{10000 * c + hour}.0" for c in range(7))
        rows.append(f"2016-07-01 {hour},{numbers}")
    return "\n".join(rows) + "\n"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file in the place of the published one, with its checksum."""
    text = written().encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(_series, "_ETTH1", Remote("https://at/ETTh1.csv", md5))
    return text


@pytest.fixture
def data(published: bytes, tmp_path: Path) -> DataSet:
    (tmp_path / "ETTh1.csv").write_bytes(published)
    return load("etth1", tmp_path)


def series(split: object) -> Series:
    assert isinstance(split, Series)
    return split


def y_of(split: object) -> Tensor:
    return series(split).y


def test_the_parts_are_months_of_30_days(data: DataSet) -> None:
    ends = (TRAIN, TRAIN + HELD, TRAIN + HELD + TEST)
    for split, first, end in zip(
        (data.train, data.validation, data.test), (0, *ends), ends, strict=False
    ):
        assert y_of(split).tolist() == list(range(first, end))
    assert (SETS["etth1"].train, SETS["etth1"].test) == (TRAIN, TEST)
    assert data.classes == ()


@pytest.mark.parametrize("horizon", [96, 192, 336, 720])
@pytest.mark.parametrize("lookback", [96, 512])
def test_windows_begin_and_end_where_the_closed_form_says(
    data: DataSet, horizon: int, lookback: int
) -> None:
    one = prepared(data, forecast(horizon=horizon, lookback=lookback))
    train, test = y_of(one.train), y_of(one.test)
    assert len(train) == TRAIN - lookback - horizon + 1
    assert len(test) == TEST - horizon + 1
    assert (train[0], train[-1] + horizon) == (lookback, TRAIN)
    assert (test[0], test[-1] + horizon) == (TRAIN + HELD, TRAIN + HELD + TEST)


def test_validation_is_the_part_between(data: DataSet) -> None:
    one = prepared(data, forecast(validation=0.1))
    held = y_of(one.test)
    assert (held[0], held[-1] + 96, len(held)) == (TRAIN, TRAIN + HELD, HELD - 95)
    assert torch.equal(y_of(one.train), y_of(prepared(data, forecast()).train))
    assert one.validation is None
    assert "validation part" in one.split


def test_mean_and_deviation_are_those_of_the_training_steps(data: DataSet) -> None:
    # Of 0, 1, ..., n - 1: (n - 1) / 2, and sqrt((n^2 - 1) / 12).
    mean = [10000 * c + (TRAIN - 1) / 2 for c in range(7)]
    assert data.mean == pytest.approx(mean, rel=1e-12)
    deviation = ((TRAIN**2 - 1) / 12) ** 0.5
    assert data.std == pytest.approx([deviation] * 7, rel=1e-9)


def test_a_window_is_what_came_before_and_what_comes_next(data: DataSet) -> None:
    one = forecast(horizon=3, lookback=5)
    train = series(prepared(data, one).train)
    plain = (0.0,) * 7, (1.0,) * 7
    windows = Windows.of(train, train.y, plain, one, torch.device("cpu"))
    ((x, y),) = windows.read([(torch.tensor([0, 7]), 0)])
    assert (x.shape, y.shape) == ((2, 7, 5), (2, 7, 3))
    for row, start in zip(range(2), (0, 7), strict=True):
        for c in range(7):
            numbers = [10000.0 * c + start + k for k in range(8)]
            assert x[row, c].tolist() == numbers[:5]
            assert y[row, c].tolist() == numbers[5:]


def test_windows_are_a_view_and_no_copy_of_the_series(data: DataSet) -> None:
    one = forecast()
    train = series(prepared(data, one).train)
    statistics = (data.mean, data.std)
    windows = Windows.of(train, train.y, statistics, one, torch.device("cpu"))
    assert windows.values.numel() == train.values.numel()
    assert windows.values.dtype == torch.float32


def test_some_windows_are_drawn(data: DataSet) -> None:
    some = y_of(prepared(data, forecast(train_examples=100)).train)
    whole = y_of(prepared(data, forecast()).train)
    assert len(some) == 100
    assert set(some.tolist()) <= set(whole.tolist())


@pytest.mark.parametrize("place", ["ETTh1.csv", "etth1/ETTh1.csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_file_is_found_compressed_or_not(
    place: str, packed: bool, published: bytes, tmp_path: Path
) -> None:
    path = tmp_path / (f"{place}.xz" if packed else place)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lzma.compress(published) if packed else published)
    values = series(load("etth1", tmp_path).train).values
    assert values[6, :3].tolist() == [60000.0, 60001.0, 60002.0]
    assert values.dtype == torch.float64


def test_without_a_file_it_is_downloaded_and_checked(
    published: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[object, object]]()

    def bring(url: str, md5: str, path: Path, _: object) -> None:
        asked.append((url, md5))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(published)

    monkeypatch.setattr("flatmin.experiments.datasets._fetch.download", bring)
    load("etth1", tmp_path)
    assert asked == [(_series._ETTH1.url, _series._ETTH1.md5)]
    assert (tmp_path / "etth1" / "ETTh1.csv").is_file()


@pytest.mark.parametrize("name", ["ETTh1.csv", "ETTh1.csv.xz"])
def test_a_changed_or_damaged_file_is_named(
    name: str, published: bytes, tmp_path: Path
) -> None:
    changed = published.replace(b"60002.0", b"60003.0")
    packed = name.endswith(".xz")
    (tmp_path / name).write_bytes(lzma.compress(changed) if packed else changed)
    with pytest.raises(BadInput, match=rf"{name} is damaged \(the MD5 checksum"):
        load("etth1", tmp_path)
    (tmp_path / name).write_bytes(b"no such format")
    with pytest.raises(BadInput, match=f"{name} is damaged"):
        load("etth1", tmp_path)


def test_the_published_file_is_asked_for_with_its_checksum() -> None:
    assert _series._ETTH1.url.endswith("zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv")
    assert _series._ETTH1.md5 == "8381763947c85f4be6ac456c508460d6"


def test_the_digest_sees_one_number(data: DataSet) -> None:
    before = data.digest()
    series(data.train).values[3, 20_000 - 5_560] += 1e-6
    assert data.digest() != before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"horizon": 2881},
            "test part of etth1 has 2,880 steps, too few .* horizon 2881",
        ),
        (
            {"lookback": 8600},
            "train part of etth1 has 8,640 steps, .* lookback 8600",
        ),
    ],
)
def test_a_part_shorter_than_a_window_is_refused(
    fields: dict[str, int], words: str, data: DataSet
) -> None:
    with pytest.raises(BadInput, match=words):
        prepared(data, forecast(**fields))


def test_a_series_is_no_data_set_of_images_and_no_image_is_forecast(
    data: DataSet,
) -> None:
    with pytest.raises(BadInput, match=r"etth1 is a series. Use --set horizon=96"):
        prepared(data, Experiment(data="etth1", augment=()))
    with pytest.raises(BadInput, match=r"digits has images. Use --set data=etth1"):
        made_up_images(forecast(data="digits"))


@pytest.mark.parametrize("horizon", [1, 96, 720])
def test_a_made_up_series_has_windows_of_each_part(horizon: int) -> None:
    one = made_up_images(forecast(horizon=horizon))
    assert (len(y_of(one.train)), len(y_of(one.test))) == (24, 12)
    held = made_up_images(forecast(horizon=horizon, validation=0.1))
    assert len(y_of(held.test)) == 12
    assert held.digest() != one.digest()
    assert made_up_images(forecast(horizon=horizon)).digest() == one.digest()
