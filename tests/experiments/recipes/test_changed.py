"""Settings reach every arm that they concern, or none is changed."""

import pytest

from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes import RECIPES, Recipe, changed, recipe, smoke


def values(changed: Recipe, field: str) -> set[object]:
    return {getattr(arm, field) for cell in changed.cells for arm in cell.arms}


def test_a_field_is_set_in_every_arm_and_the_rest_stays() -> None:
    old, new = recipe("table4"), changed(recipe("table4"), ["epochs=30"])
    pairs = zip(old.cells, new.cells, strict=True)
    for before, after in pairs:
        assert (before.name, before.paper) == (after.name, after.paper)
        wanted = [arm.model_copy(update={"epochs": 30}) for arm in before.arms]
        assert list(after.arms) == wanted
    assert new.scale == "epochs 30 instead of 200"
    assert (new.seeds, new.notes) == (old.seeds, old.notes)


def test_seeds_are_the_recipes() -> None:
    new = changed(recipe("table1"), ["seeds=2"])
    assert (new.seeds, new.cells) == (2, recipe("table1").cells)
    assert new.scale == "seeds 2 instead of 5"


def test_values_are_json_or_words_and_are_named_as_they_are_taken() -> None:
    part = recipe("table5/svhn/wrn-28-10/basic")
    settings = ["data=digits", "augment=[]", "m=null", "lr=.2", "rho=1e-1", "clip=5"]
    new = changed(part, settings)
    assert new.scale == (
        "data digits instead of svhn, augment none instead of flip, crop, m none "
        "instead of 32, lr 0.2 instead of 0.01, rho 0.1 instead of 0.01, clip 5.0 "
        "instead of none"
    )
    assert values(new, "clip") == {5.0}


def test_rho_leaves_sgd_alone() -> None:
    new = changed(recipe("table1/cifar10/wrn-28-10-200"), ["rho=0.3"])
    rhos = {(a.method, a.rho) for cell in new.cells for a in cell.arms}
    assert rhos == {("sam", 0.3), ("sgd", 0.0)}
    assert new.scale == "rho 0.3 instead of 0.05"


def test_options_of_the_method_leave_sgd_alone() -> None:
    options = 'method_options={"decay_in_ascent": true}'
    new = changed(recipe("table1/cifar10"), [options])
    for cell in new.cells:
        for arm in cell.arms:
            sam = arm.method == "sam"
            assert arm.method_options == ({"decay_in_ascent": True} if sam else {})


def test_another_method_takes_rho_where_sgd_did_not() -> None:
    new = changed(recipe("table4/noise-40/sgd"), ["rho=0.3", "method=asam"])
    assert values(new, "rho") == {0.3}
    assert new.scale == "rho 0.3 instead of 0.0, method asam instead of sgd"


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        (
            "table4",
            "noise=0.3",
            "noise tells the cells of table4 apart: 0.2, 0.4, 0.6, 0.8. Choose a part "
            "in which it is the same: table4/noise-20, table4/noise-40, "
            "table4/noise-60, table4/noise-80.",
        ),
        ("table4", "rho=0.3", "rho tells .*: 0.1, 0.05. Choose .*table4/noise-20"),
        ("table1", "data=digits", "same: table1/cifar10, table1/cifar100."),
        ("table1", "epochs=3", "same: table1/cifar10/wrn-28-10-200, .* and 6 more."),
        ("table4/noise-40", "method=asam", "same: table4/noise-40/sgd, .*/sam"),
        ("table4/noise-40/sam", "length=2", "length: it tells arms apart"),
        ("table4/noise-40/mixup", "mixup=2", r"apart: 1.0, 8.0, .*cannot be set."),
        ("table4/noise-40", "bootstrap=true", "bootstrap tells"),
        ("figure3-middle", "m=8", "m tells .*figure3-middle/m-1, .*m-64 and 1 more"),
        ("c5", 'method_options={"p": 3}', "same: c5/l2, c5/linf, c5/random."),
        ("table2", "epochs=90", "apart: 100, 200, 400."),
    ],
)
def test_what_tells_cells_apart_cannot_be_set(
    name: str, setting: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        changed(recipe(name), [setting])


@pytest.mark.parametrize(
    "part",
    ["table4/noise-20", "table1/cifar10/wrn-28-10-1800", "table5/fashion-mnist"],
)
def test_every_part_that_a_refusal_names_is_accepted(part: str) -> None:
    field = {"table4": "noise=0.3", "table1": "epochs=3", "table5": "data=digits"}
    name = part.partition("/")[0]
    with pytest.raises(BadInput, match=part):
        changed(recipe(name), [field[name]])
    assert changed(recipe(part), [field[name]]).scale != "paper"


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("table1", "epoch=3", "unknown field 'epoch'; did you mean 'epochs'?"),
        ("table1", "seed=3", "a recipe runs seeds 0, 1 and so on; set seeds"),
        ("table1", "seeds=0", "seeds: must be a whole number from 1 to 10000, got 0"),
        (
            "table1",
            "seeds=true",
            "seeds: must be a whole number from 1 to 10000, got True",
        ),
        (
            "table1",
            "seeds=2.0",
            "seeds: must be a whole number from 1 to 10000, got 2.0",
        ),
        ("table1", "seeds", "--set needs FIELD=VALUE, got 'seeds'"),
        ("table1", "momentum=2", "momentum: .*less than 1, got 2"),
        ("table1", "batch_size=40", "batch_size 40 is not a multiple of m 32"),
        ("table4/noise-40/sgd", "rho=0.3", "rho means nothing to any cell"),
        ("table4/noise-40/huang", "lr=0.3", "lr means nothing to any cell"),
        ("table3/cars", "epochs=3", "where training lasts 5000 steps. Set steps"),
        ("figure3-left", "epochs=30", "not within the 30 epochs"),
        ("figure3-left", "spectrum_at=[1]", "reports spectrum 2 of spectrum_at"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    name: str, setting: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        changed(recipe(name), [setting])


def test_sharded_weights_cannot_have_their_channels_last() -> None:
    with pytest.raises(BadInput, match=r"strategy fsdp .* use channels_last=false"):
        changed(recipe("table1"), ["channels_last=true", "strategy=fsdp"])


def test_spectra_move_with_the_epochs_they_are_set_to() -> None:
    new = changed(recipe("figure3-left"), ["epochs=30", "spectrum_at=[1, 5, 30]"])
    assert [cell.epoch for cell in new.cells[::4]] == [1, 5, 30]


def test_fine_tuning_can_be_told_epochs_in_place_of_steps() -> None:
    new = changed(recipe("table3/cars/b7"), ["steps=null", "epochs=3"])
    assert (values(new, "steps"), values(new, "epochs")) == ({None}, {3})
    assert new.scale == "steps none instead of 5000, epochs 3 instead of 200"


@pytest.mark.parametrize(
    "setting",
    ["epochs=200", "seeds=5", "device=cpu", "evaluate_every=5", "channels_last=true"],
)
def test_what_changes_no_number_is_no_difference(setting: str) -> None:
    assert changed(recipe("table4"), [setting]).scale == "paper"


def test_changes_of_a_changed_recipe_are_added() -> None:
    part = changed(smoke(recipe("table4")), ["lr=0.2"])
    assert changed(part, ["seeds=2"]).scale == (
        "smoke, lr 0.2 instead of 0.1, seeds 2 instead of 1"
    )


@pytest.mark.parametrize("name", RECIPES)
def test_no_setting_changes_nothing(name: str) -> None:
    assert changed(recipe(name), []) == recipe(name)
