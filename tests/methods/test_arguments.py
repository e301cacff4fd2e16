"""What every option of every method, and of every joint, may be."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

import flatmin
from flatmin import SAM
from flatmin.core import (
    Shortened,
    Step,
    combine,
    filters,
    fraction,
    gates,
    radii,
    scales,
    sources,
)
from flatmin.methods import METHODS, RENAMED
from flatmin.optim import Options
from tests.methods.table import NAMES, OPTIONS, base_for, built

#: The options of a method, and in which interval each may be.
NUMBERS: dict[str, dict[str, str]] = {
    "asam": {"eta": "[0, inf)"},
    "fisher_sam": {"eta": "[0, inf)"},
    "sparse_sam": {"share": "(0, 1]"},
    "friendly_sam": {"sigma": "[0, inf)", "decay": "[0, 1)"},
    "vasso": {"theta": "(0, 1]"},
    "zsharp": {"share": "[0, 1)"},
    "sampa": {"weight": "[0, 1]"},
    "gnp": {"alpha": "[0, inf)"},
    "gsam": {"alpha": "[0, inf)"},
    "wsam": {"gamma": "[0, 1)"},
    "coupled_wsam": {"gamma": "[0, 1)"},
    "sagm": {"alpha": "[0, inf)"},
    "late_sam": {"share": "(0, 1]"},
    "late_subset_sam": {"late": "(0, 1]", "share": "(0, 1]", "ramp": "[0, 1]"},
    "ss_sam": {"probability": "(0, 1]"},
    "ae_sam": {"decay": "[0, 1)", "early": "(-inf, inf)", "late": "(-inf, inf)"},
    "looksam": {"alpha": "[0, inf)"},
    "subset_sam": {"share": "(0, 1]"},
    "matched_sam": {"share": "(0, 1]", "decay": "[0, 1]"},
    "k_sam": {"share": "(0, 1]"},
    "esam": {"beta": "(0, 1]", "gamma": "(0, 1]"},
    "split_rwp": {"mix": "[0, 1]"},
    "ire": {"sharp": "(0, 1)"},
    "lookbehind_sam": {"alpha": "(0, 1]"},
    "cr_sam": {"gamma": "[0, inf)", "beta": "[0, inf)"},
    "gam": {
        "slope_rho": "(0, inf)",
        "alpha": "[0, 1]",
        "beta": "[0, 1]",
        "gamma": "[0, inf)",
    },
    "bsam": {"precision": "[0, inf)", "damping": "[0, inf)", "start": "(0, inf)"},
}

#: Those that are whole numbers; 1 is the least of each.
WHOLE: dict[str, tuple[str, ...]] = {
    "sparse_sam": ("every", "samples", "m"),
    "interval_sam": ("k",),
    "late_sam": ("steps",),
    "late_subset_sam": ("steps",),
    "ae_sam": ("steps",),
    "looksam": ("k",),
    "lookbehind_sam": ("k",),
    "multi_step_sam": ("k",),
    "bsam": ("n",),
    "flat_lora": ("steps",),
    "split_rwp": ("steps",),
    "ire": ("every",),
}

#: Shares of a training, of which the smallest are no step.
LATE = {("late_sam", "share"), ("late_subset_sam", "late")}

#: Those that are neither, with tests of their own below.
OTHERS = {("gsam", "radius"), ("bsam", "betas"), ("ire", "start")}


def ends(interval: str) -> tuple[float, float]:
    low, high = interval[1:-1].split(", ")
    return float(low), float(high)


def outside(interval: str) -> list[float]:
    """NaN, the next numbers beyond the ends, and ends that do not belong to it."""
    low, high = ends(interval)
    below = low if interval[0] == "(" else math.nextafter(low, -math.inf)
    above = high if interval[-1] == ")" else math.nextafter(high, math.inf)
    return [math.nan, below, above, -math.inf, math.inf]


def within(interval: str) -> list[float]:
    """The ends, or the next numbers inside if they do not belong to it."""
    low, high = ends(interval)
    first = low if interval[0] == "[" else math.nextafter(low, math.inf)
    last = high if interval[-1] == "]" else math.nextafter(high, -math.inf)
    return [first, last]


BAD = [
    pytest.param(name, option, value, interval, id=f"{name}-{option}-{value}")
    for name, options in NUMBERS.items()
    for option, interval in options.items()
    for value in outside(interval)
]
GOOD = [
    pytest.param(name, option, value, id=f"{name}-{option}-{value}")
    for name, options in NUMBERS.items()
    for option, interval in options.items()
    for value in within(interval)
    # The shortest part of a training that is a step.
    if (name, option) not in LATE or value == 1
]
COUNTS = [
    pytest.param(name, option, id=f"{name}-{option}")
    for name, options in WHOLE.items()
    for option in options
]
EVERY = [
    *[(name, option) for name, options in NUMBERS.items() for option in options],
    *[(name, option) for name, options in WHOLE.items() for option in options],
]


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()


def made(name: str, option: str, value: Any) -> SAM:
    options: dict[str, Any] = {option: value}
    return built(name, normed(), **options)


def test_the_tables_have_every_option_of_every_method() -> None:
    found = {
        (name, option)
        for name in NAMES
        if name != "sam"
        for option, given in inspect.signature(METHODS[name].build).parameters.items()
        if given.kind is given.KEYWORD_ONLY and option != "rho"
    }
    assert found == {*EVERY, *OTHERS}


@pytest.mark.parametrize(("name", "option", "value", "interval"), BAD)
def test_a_number_out_of_range_is_refused_by_name(
    name: str, option: str, value: float, interval: str
) -> None:
    said = f"{option} must be in {interval}, got {value}; "
    with pytest.raises(ValueError, match=f"^{re.escape(said)}.*[0-9]"):
        made(name, option, value)


@pytest.mark.parametrize(("name", "option", "value"), GOOD)
def test_the_ends_of_the_range_are_accepted(
    name: str, option: str, value: float
) -> None:
    made(name, option, value)


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_a_count_below_one_is_refused_by_name(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be at least 1, got 0; "):
        made(name, option, 0)


@pytest.mark.parametrize(("name", "option"), COUNTS)
@pytest.mark.parametrize("value", [2.5, 2.0, True, "2", None])
def test_a_count_that_is_no_int_is_refused_by_name(
    name: str, option: str, value: object
) -> None:
    said = re.escape(f"{option} must be a whole number, got {value!r}")
    with pytest.raises(TypeError, match=f"^{said}"):
        made(name, option, value)


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_a_count_of_one_is_accepted(name: str, option: str) -> None:
    # Of one step an eighth is none.
    whole = {"late_sam": {"share": 1.0}, "late_subset_sam": {"late": 1.0}}
    more: dict[str, Any] = whole.get(name, {})
    built(name, normed(), **{option: 1, **more})


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in NUMBERS for option in NUMBERS[name]]
)
@pytest.mark.parametrize("value", [True, "0.5", None, [0.5]])
def test_what_is_no_number_is_refused_by_name(
    name: str, option: str, value: object
) -> None:
    said = re.escape(f"{option} must be a number, got {value!r}")
    with pytest.raises(TypeError, match=f"^{said}"):
        made(name, option, value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rho", [True, "0.05", None])
def test_a_radius_that_is_no_number_is_refused(name: str, rho: object) -> None:
    with pytest.raises(TypeError, match=r"^rho must be a number, got"):
        built(name, normed(), rho=rho)


@pytest.mark.parametrize(
    ("betas", "kind", "said"),
    [
        ((1, 0.9), ValueError, "betas[0] must be in [0, 1), got 1; "),
        ((0.9, 1.0), ValueError, "betas[1] must be in [0, 1), got 1.0; "),
        ((math.nan, 0.9), ValueError, "betas[0] must be in [0, 1), got nan; "),
        ((True, 0.9), TypeError, "betas[0] must be a number, got True"),
        (0.9, TypeError, "betas must be two numbers, got 0.9"),
        ((0.9,), TypeError, "betas must be two numbers, got (0.9,)"),
        ("09", TypeError, "betas must be two numbers, got '09'"),
    ],
)
def test_impossible_betas_are_refused(
    betas: object, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(said)}"):
        built("bsam", normed(), betas=betas)


def test_betas_may_be_zero_and_a_list() -> None:
    built("bsam", normed(), betas=[0, 0.0])


def test_a_number_for_the_rule_of_the_radius_is_refused() -> None:
    with pytest.raises(TypeError, match=r"radius must be one of .* Write|rho=0\.1"):
        built("gsam", normed(), radius=0.1)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_too_short_for_its_last_part_is_refused(steps: int) -> None:
    said = f"share 0.125 of {steps} steps is less than a step"
    with pytest.raises(ValueError, match=said):
        built("late_sam", normed(), steps=steps, share=0.125)


def test_the_last_of_four_steps_may_be_the_only_one_that_climbs() -> None:
    built("late_sam", normed(), steps=5, share=0.125)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sam"])
@pytest.mark.parametrize("option", ["lam", "p", "norm_over", "method"])
def test_an_unknown_option_is_refused_in_the_name_of_the_method(
    name: str, option: str
) -> None:
    said = rf"^{name}\(\) got an unexpected keyword argument '{option}'"
    with pytest.raises(TypeError, match=f"{said}.*scope, decay_in_ascent"):
        made(name, option, 2.0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sam"])
def test_options_are_those_of_sam_that_no_method_sets(name: str) -> None:
    hints = get_type_hints(METHODS[name].build)
    assert hints.pop("options").__args__ == (Options,)
    signature = inspect.signature(SAM.__init__).parameters
    free = {n for n, p in signature.items() if p.kind is p.KEYWORD_ONLY}
    assert set(get_type_hints(Options)) == free - {"rho", "p", "norm_over", "method"}
    sams = get_type_hints(SAM.__init__)
    assert all(kind == sams[key] for key, kind in get_type_hints(Options).items())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_argument_is_a_built_optimizer(name: str) -> None:
    build, options = METHODS[name].build, OPTIONS.get(name, {})
    with pytest.raises(TypeError, match="must be a built optimizer, got the class SGD"):
        build(torch.optim.SGD, normed(), **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_argument_is_a_module(name: str) -> None:
    made = base_for(name, normed().parameters())
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        METHODS[name].build(made, 3, **OPTIONS.get(name, {}))


def test_the_former_name_of_the_penalty_warns_and_is_the_same() -> None:
    model = normed()
    base = base_for("gnp", model.parameters())
    with pytest.warns(DeprecationWarning, match=r"Write flatmin\.gnp") as caught:
        optimizer = flatmin.pnm(base, model, rho=0.2, alpha=0.7, track=True)
    assert caught[0].filename == __file__
    assert optimizer.method == built("gnp", normed(), alpha=0.7).method
    assert optimizer.param_groups[0]["sam_rho"] == 0.2
    assert optimizer.options["track"] is True
    with pytest.raises(TypeError, match=r"^pnm\(\) got an unexpected"):
        flatmin.pnm(base, model, lam=1)  # pyright: ignore[reportCallIssue]


def test_former_names_lead_to_methods() -> None:
    assert RENAMED.keys() == {"pnm"}
    assert set(RENAMED.values()) <= METHODS.keys()
    assert not RENAMED.keys() & METHODS.keys()


def rising(k: int) -> float:
    return k - 1.0


#: How a joint is made from a value, and in which interval that may be.
JOINTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "share": (fraction, "(0, 1]"),
    "eta": (scales.Adaptive, "[0, inf)"),
    "alpha": (combine.minus_orthogonal, "[0, inf)"),
    "probability": (gates.by_chance, "(0, 1]"),
    "rates[1]": (lambda x: gates.last_mass(1.0, [0.1, x]), "[0, inf)"),
    "c": (radii.times, "(0, inf)"),
    "start": (lambda x: radii.linear(x, 1.0, 5), "[0, inf)"),
    "end": (lambda x: radii.cosine(1.0, x, 5), "[0, inf)"),
    "rho_min": (lambda x: radii.with_rate(x, 0.0, 0.1), "[0, inf)"),
    "lr_min": (lambda x: radii.with_rate(0.0, x, math.nextafter(math.inf, 0)), ""),
    "lr_max": (lambda x: radii.with_rate(0.0, 0.1, x), ""),
    "sigma": (lambda x: sources.friendly(x, 0.9), "[0, inf)"),
    "theta": (sources.smoothed, "(0, 1]"),
}


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_ramp_refuses_fewer_steps_than_one(steps: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^steps must be"):
        radii.ramp(3, steps)


@pytest.mark.parametrize("name", JOINTS)
def test_a_joint_refuses_what_is_out_of_range(name: str) -> None:
    make, interval = JOINTS[name]
    for value in outside(interval) if interval else [math.nan, math.inf, -1.0]:
        with pytest.raises(ValueError, match=f"^{re.escape(name)} must be in .*got"):
            make(value)
    with pytest.raises(TypeError, match=f"^{re.escape(name)} must be a number"):
        make("1")


@pytest.mark.parametrize("name", [name for name in JOINTS if JOINTS[name][1]])
def test_a_joint_accepts_the_ends_of_its_range(name: str) -> None:
    make, interval = JOINTS[name]
    for value in within(interval):
        make(value)


def test_other_joints_refuse_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="alpha must be in"):
        Shortened(-0.1)
    with pytest.raises(ValueError, match="probability must be in"):
        filters.by_chance(0.0)
    with pytest.raises(ValueError, match="at must be at least 0, got -1"):
        radii.jump(-1)
    with pytest.raises(TypeError, match=r"k must be a whole number, got 2\.5"):
        gates.every(2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"steps must be a whole number, got 2\.5"):
        gates.last(0.5, 2.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", [radii.linear, radii.cosine])
def test_a_schedule_that_is_zero_throughout_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="start and end are both 0"):
        make(0.0, 0, 5)


def test_a_schedule_is_a_function_with_possible_values() -> None:
    with pytest.raises(TypeError, match=r"factor must be a function .*got 0\.5"):
        radii.scheduled(0.5)  # pyright: ignore[reportArgumentType]
    step = Step(index=0, model=nn.Linear(1, 1), w=[], groups=[{"sam_rho": 0.1}])
    with pytest.raises(ValueError, match=r"factor\(0\) must be in .*got -1\.0"):
        radii.scheduled(rising)(step)


def test_a_learning_rate_that_makes_the_radius_negative_is_refused() -> None:
    group = {"sam_rho": 0.1, "lr": 0.0}
    step = Step(index=0, model=nn.Linear(1, 1), w=[], groups=[group])
    with pytest.raises(ValueError, match="lowest learning rate of the training"):
        radii.with_rate(0.0, 0.01, 0.1)(step)


def test_the_interval_shows_the_factor_of_its_radius() -> None:
    assert "radius=times(10)" in repr(built("interval_sam", normed(), k=10))
