"""``--set field=value``: what it takes, and the line that it is refused with."""

import re
from pathlib import Path

import pytest

from flatmin.experiments.config import FIELDS, Experiment, parsed, validated
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import Program

LONG = "1" * 5000
DEEP = "[" * 100_000
ONE = ("train", "table4/noise-40/sam", "--smoke")
SPLIT = ("method=split_rwp", 'method_options={"steps":10}')


def changed(*settings: str) -> Experiment:
    return validated(Experiment, parsed(settings, FIELDS))


def test_settings_are_json_or_words() -> None:
    one = changed("epochs=7", "spectrum_at=[2, 5]", "device=cpu", "lr=1e-2", "m=null")
    assert (one.epochs, one.spectrum_at, one.device) == (7, (2, 5), "cpu")
    assert (one.lr, one.m) == (0.01, None)


def test_a_setting_leaves_the_other_fields_alone() -> None:
    assert changed("rho=0.1").model_dump() == {**Experiment().model_dump(), "rho": 0.1}


def test_a_value_may_contain_the_sign_that_ends_the_name() -> None:
    assert changed("data=/images/a=b").data == "/images/a=b"


@pytest.mark.parametrize("zero", ["-0", "-0.0", "-0e5", "0"])
def test_a_negative_zero_is_zero(zero: str) -> None:
    assert repr(changed(f"rho={zero}").rho) == "0.0"


def test_a_norm_may_be_infinite() -> None:
    one = changed("method=sam", 'method_options={"p": Infinity}')
    assert one.method_options == {"p": float("inf")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # Names
        (["epoch=3"], "unknown field 'epoch'; did you mean 'epochs'?"),
        (["zzz=3"], "unknown field 'zzz'; known: .*epochs"),
        (["=3"], "unknown field ''; known: "),
        (["rho =0.1"], "unknown field 'rho '; did you mean 'rho'?"),
        (["model_options.depth=3"], "did you mean 'model_options'?"),
        (["epochs"], "--set needs FIELD=VALUE, got 'epochs'"),
        ([""], "--set needs FIELD=VALUE, got ''"),
        (["rho=0.1", "rho=0.2"], r"rho is set twice\. Use --set rho=VALUE once"),
        (["rho=0.1", "rho=0.1"], "rho is set twice"),
        # Nothing
        (["rho="], r"rho has no value\. Use --set rho=VALUE"),
        (["data= \t"], "data has no value"),
        # Numbers of the wrong size
        (["rho=-1"], "rho: .*greater than or equal to 0, got -1"),
        (["rho=1e308"], r"rho: .*less than or equal to 1"),
        (["rho=1e999"], "rho: a number is finite, got '1e999'"),
        (["rho=-1e999"], "rho: a number is finite"),
        (["rho=NaN"], "rho: a number is finite, got 'NaN'"),
        (["rho=nan"], "rho: .*finite"),
        (["rho=Infinity"], "rho: .*finite"),
        (["rho=-Infinity"], "rho: .*finite"),
        (['method_options={"p": NaN}'], "method_options: a number is finite"),
        ([f"rho=1{'0' * 400}"], "rho: a whole number has at most 18 digits"),
        ([f"rho=1{'0' * 400}.5"], "rho: a number is finite"),
        ([f"epochs={LONG}"], "epochs: a whole number has at most 18 digits"),
        ([f"epochs=-{LONG}"], "epochs: a whole number has at most 18 digits"),
        ([f"epochs=0{LONG}"], "epochs: .*integer"),
        ([f'model_options={{"depth": {LONG}}}'], "model_options: .*18 digits"),
        (["epochs=-0"], "epochs: .*greater than or equal to 1"),
        (["epochs=-5"], "epochs: .*greater than or equal to 1"),
        (["epochs=1000001"], "epochs: .*less than or equal to 1000000"),
        (["epochs=1e999"], "epochs: a number is finite"),
        (["steps=-1"], "steps: .*greater than or equal to 1"),
        (["steps=999999999999999999"], "steps: .*less than or equal to 1000000000"),
        (["batch_size=0"], "batch_size: .*greater than or equal to 1"),
        (["batch_size=1000001"], "batch_size: .*less than or equal to 1000000"),
        (["m=1000001"], "m: .*less than or equal to 1000000"),
        (["accumulate=1000001"], "accumulate: .*less than or equal to 1000000"),
        (["seed=4294967296"], "seed: .*less than or equal to 4294967295"),
        # Values of another kind
        (["rho=big"], "rho: .*valid number.*got 'big'"),
        (["rho=[0.1]"], r"rho: .*valid number, got \[0\.1\]"),
        (["rho={}"], r"rho: .*valid number, got \{\}"),
        (["epochs=1.5"], "epochs: .*integer"),
        (["epochs=true"], "epochs: Input should be a number, got True"),
        (["rho=false"], "rho: Input should be a number, got False"),
        (["spectrum_at=[true]"], r"spectrum_at: .* a number, got \[True\]"),
        (["device=tpu"], "device: .*'cpu'"),
        (["augment=[blur]"], "augment"),
        # Nested too deep
        ([f"method_options={DEEP}"], "method_options: lists and objects are at most 8"),
        ([f"method_options={'[' * 900}{']' * 900}"], "at most 8 deep"),
        (['method_options={"a": ' * 9 + "1" + "}" * 9], "method_options: "),
        ([f"{'x' * 100_000}=1"], "unknown field 'xxx"),
        ([f"model={'x ' * 50_000}", "rho=-1"], "rho: "),
        ([f"rho={'x ' * 50_000}"], "rho: .*valid number"),
    ],
)
def test_a_bad_setting_is_named_in_a_few_words(
    settings: list[str], message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        changed(*settings)
    assert re.search(message, str(refused.value)), str(refused.value)
    known = len(", ".join(FIELDS)) if "known: " in str(refused.value) else 0
    assert len(str(refused.value)) - known < 400


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seeds=100000000000000000000000000"], "seeds: .*at most 18 digits"),
        (["seeds=10001"], "seeds: must be a whole number from 1 to 10000, got 10001."),
        (["seeds=0"], "seeds: must be a whole number from 1 to 10000, got 0."),
        (["seeds=-3"], "seeds: must be a whole number from 1 to 10000, got -3."),
        (["seeds=true"], "seeds: must be a whole number from 1 to 10000, got True."),
        (["seeds=1.5"], "seeds: must be a whole number from 1 to 10000, got 1.5."),
        ([f"seeds={DEEP}"], "seeds: lists and objects are at most 8 deep"),
        (['method_options={"zzz": 1}'], "method sam: "),
        (["nesterov=true", "momentum=0"], "nesterov needs a momentum above 0"),
        (['model_options={"zzz": 1}'], "resnet-8: .* argument 'zzz'"),
        (['model_options={"a": {"b": [1]}}'], "resnet-8: .* argument 'a'"),
        (["model_options=[1]"], "model_options: .*dictionary"),
        ([*SPLIT, "m=1"], "splits the examples of a pass, and there is 1. .* m=2"),
        ([*SPLIT, "m=2", "accumulate=2"], "there is 1. Use --set m=4"),
        pytest.param(["epochs=3", "epochs=4"], "epochs is set twice", id="twice"),
        (["rho=\udcff"], r"an argument is not UTF-8: '--set=rho=\\udcff'"),
        ([f"rho={'x ' * 1000}"], "rho: "),
    ],
)
def test_a_bad_setting_is_one_line_on_stderr(
    settings: list[str], message: str, program: Program, tmp_path: Path
) -> None:
    given = [f"--set={one}" for one in settings]
    code, _, err = program(*ONE, f"--out={tmp_path / 'runs'}", *given)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("flatmin: ")
    assert re.search(message, line), line
    assert len(line) < 600


def test_a_sweep_has_an_end(program: Program, tmp_path: Path) -> None:
    many = ",".join(str(k / 1000) for k in range(1, 102))
    grid = [f"--set=rho=[{many}]", f"--set=lr=[{many}]"]
    sweep = ("sweep", *ONE[1:], f"--out={tmp_path}/runs")
    code, out, err = program(*sweep, *grid)
    assert (code, out) == (2, "")
    assert err == "flatmin: a sweep has at most 10000 points, got 10201.\n"
