"""Where a network's weights come from."""

import math
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import _timm, build

NAME = "test_efficientnet.r160_in1k"
State = dict[str, Tensor]


def made_up(classes: int = 5, name: str = NAME) -> State:
    """Weights that no initialisation draws."""
    state = build(name, classes, weights="none").state_dict()
    return {k: torch.full_like(x, 3) for k, x in state.items()}


def loaded(path: Path, classes: int = 5, name: str = NAME) -> State:
    return build(name, classes, weights=str(path)).state_dict()


def tensors(path: Path, state: State) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def plain(path: Path, state: State) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def checkpoint(path: Path, state: State) -> Path:
    torch.save({"epoch": 3, "state_dict": state}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def parallel(path: Path, state: State) -> Path:
    inside = {f"module.{k}": x for k, x in state.items()}
    torch.save({"model": inside, "optimizer": {}}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@pytest.mark.parametrize("write", [tensors, plain, checkpoint, parallel])
def test_every_kind_of_file_gives_all_weights(
    write: Callable[[Path, State], Path], tmp_path: Path
) -> None:
    state = made_up()
    found = loaded(write(tmp_path / "w", state))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], x) for name, x in state.items())


@pytest.mark.parametrize("name", [NAME, "timm/test_vit.r160_in1k", "resnet-8"])
def test_a_classifier_of_other_classes_is_zero(name: str, tmp_path: Path) -> None:
    found = loaded(tensors(tmp_path / "w", made_up(7, name)), 5, name)
    own = [x for x in found.values() if not (x == 3).all()]
    assert len(own) == 2
    assert all(x.shape[0] == 5 and not x.any() for x in own)


@pytest.mark.parametrize(("classes", "known"), [(1000, True), (5, False)])
def test_downloaded_weights_of_other_classes_have_a_classifier_of_zeros(
    classes: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, classes: int, *_: Any) -> nn.Module:
        return _timm.library(name).create_model(name, num_classes=classes)

    monkeypatch.setattr(_timm, "create", offline)
    network = build(NAME, classes)
    head = network.get_submodule("classifier")
    assert all(p.any() == known for p in head.parameters() if p.dim() == 2)
    assert network.state_dict()["conv_stem.weight"].any()


def test_the_first_loss_of_fine_tuning_is_that_of_guessing(tmp_path: Path) -> None:
    state = build(NAME, 7, weights="none").state_dict()
    network = build(NAME, 4, weights=str(tensors(tmp_path / "w", state))).eval()
    loss = cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([1, 3]))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)


def test_a_file_without_a_classifier_is_taken(tmp_path: Path) -> None:
    state = {k: x for k, x in made_up().items() if "classifier" not in k}
    assert (loaded(tensors(tmp_path / "w", state))["conv_stem.weight"] == 3).all()


def test_a_file_of_before_batches_were_counted_is_taken(tmp_path: Path) -> None:
    state = {k: x for k, x in made_up().items() if "num_batches" not in k}
    assert (loaded(plain(tmp_path / "w", state))["conv_stem.weight"] == 3).all()


def without(state: State) -> State:
    return {k: x for k, x in state.items() if "bn1" not in k}


def more(state: State) -> State:
    return {**state, "a": torch.ones(1), "b": torch.ones(1)}


def other(state: State) -> State:
    return {**state, "conv_stem.weight": torch.ones(3, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, r"bn1.weight is missing and \S*bn1.bias is missing \(\d\d"),
        (more, r"a is unknown and b is unknown \(2 in all\)"),
        (other, r"conv_stem.weight is \[3, 3\] in place of \[\d+, 3, 3, 3\] \(1 in"),
    ],
)
def test_weights_of_another_network_are_refused_and_two_named(
    change: Callable[[State], State], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="another network") as refused:
        loaded(tensors(tmp_path / "w", change(made_up())))
    assert re.search(message, str(refused.value)), str(refused.value)


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("broken-into"),)


@pytest.mark.parametrize(
    "value", [Evil(), {"state_dict": Evil()}, Namespace(lr=1), {"args": Namespace()}]
)
def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"w\.pth is damaged, or holds more"):
        loaded(tmp_path / "w.pth")
    assert not Path("broken-into").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(2)], "is no state dict"),
        ({"a": 3}, "'a' is a int"),
        ({3: torch.ones(2)}, "3 is a Tensor"),
        ({"model": torch.ones(2)}, "is no state dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    value: object, message: str, tmp_path: Path
) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=message):
        loaded(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"half of it")
    with pytest.raises(BadInput, match=rf"{name} is damaged"):
        loaded(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.pth", "no such file of weights"),
        ("w.onnx", "weights are read from"),
        ("~nobody-has-this-name/w.pth", "nobody has the home folder"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.onnx").touch()
    with pytest.raises(BadInput, match=message):
        loaded(Path(name) if name.startswith("~") else tmp_path / name)


def test_a_suffix_in_upper_case_is_the_same(tmp_path: Path) -> None:
    path = plain(tmp_path / "w", made_up()).rename(tmp_path / "W.PTH")
    assert all(bool((w == 3).all()) for w in loaded(path).values())


@pytest.mark.parametrize("damage", [math.nan, 1j])
def test_weights_that_are_no_numbers_are_refused(
    damage: complex, tmp_path: Path
) -> None:
    state = made_up()
    first = next(iter(state))
    state[first] = state[first] * damage
    path = plain(tmp_path / "w", state)
    with pytest.raises(BadInput, match=rf"damaged: {first} has values that are no num"):
        loaded(path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_without_network_one_line_says_how_to_go_on() -> None:
    with pytest.raises(BadInput) as refused:
        build(NAME, 5)
    said = str(refused.value)
    assert said.startswith(f"the pretrained weights of {NAME} cannot be had (")
    assert "--weights FILE.safetensors" in said
    assert said.endswith("To start from scratch, write none in its place.")
    assert "\n" not in said
    build(NAME, 5, weights="none")
    build("resnet-8", 5)


class Unreachable:
    """A session that fails, or does not return."""

    def __init__(self, event: Event | None = None) -> None:
        self.event = event

    def head(self, *_: object, **__: object) -> None:
        if self.event is not None:
            self.event.wait()
        raise OSError("no network")


@pytest.mark.parametrize("hangs", [False, True])
def test_a_hub_that_does_not_answer_is_not_asked_again(
    hangs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(_timm, "_PATIENCE", 0.01 if hangs else 60)
    event = Event()
    session = Unreachable(event if hangs else None)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)

    def asked(request: object) -> None:
        raise AssertionError(f"asked again: {request}")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", asked)
    with pytest.raises(BadInput, match="cannot be had") as refused:
        build(NAME, 5)
    assert "asked again" not in str(refused.value)
    assert constants.HF_HUB_OFFLINE is False
    event.set()


def test_a_network_without_pretrained_weights_says_so() -> None:
    with pytest.raises(BadInput, match=r"cannot be had \(No pretrained weights exist"):
        build("coatnet_nano_cc_224", 5)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("weights", [None, "none"])
def test_an_option_that_timm_refuses_is_one_line(weights: str | None) -> None:
    with pytest.raises(BadInput, match=r"timm cannot build test_eff.*'wings'"):
        build(NAME, 5, weights=weights, wings=2)


@pytest.mark.parametrize("name", ["resnet-8", "wrn-28-10"])
def test_an_option_that_a_network_here_refuses_is_one_line(name: str) -> None:
    with pytest.raises(BadInput, match=rf"cannot build {name}: .*'wings'"):
        build(name, 5, wings=2)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "num_classes"])
def test_what_build_decides_is_no_option(option: str) -> None:
    with pytest.raises(BadInput, match=rf"{option} is no option .* --weights"):
        build(NAME, 5, weights="none", **{option: True})


def test_a_tag_that_timm_lacks_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"Invalid pretrained tag \(xyz\)"):
        build("resnet50.xyz", 5, weights="none")


def test_a_name_with_timms_prefix_is_the_same_network() -> None:
    with torch.device("meta"):
        one, two = (build(p + NAME, 5, weights="none") for p in ("", "timm/"))
    assert one.state_dict().keys() == two.state_dict().keys()


def test_an_experiment_says_where_its_weights_come_from() -> None:
    assert Experiment().weights is None
    assert Experiment(weights="none").weights == "none"


def quantised(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.to_sparse,
        lambda x: x.flatten(1).to_sparse_csr(),
        lambda x: x.to("meta"),
        quantised,
    ],
    ids=["sparse", "csr", "meta", "quantised"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_a_value_in_each_place_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    state = made_up()
    first = next(iter(state))
    state[first] = change(state[first])
    with pytest.raises(BadInput, match=rf"{first} is no plain tensor"):
        loaded(plain(tmp_path / "w", state))


@pytest.mark.parametrize("write", [tensors, plain])
def test_the_prefix_of_replicas_is_taken_off_in_every_format(
    write: Callable[[Path, State], Path], tmp_path: Path
) -> None:
    state = made_up()
    path = write(tmp_path / "w", {f"module.{k}": x for k, x in state.items()})
    assert loaded(path).keys() == state.keys()


def test_a_key_that_holds_nothing_hides_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": None, "model": made_up()}, path)
    assert (loaded(path)["conv_stem.weight"] == 3).all()
