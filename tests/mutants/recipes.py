"""Defects of recipes and of what may be set, and the test each must turn red."""

from tests.mutants.mutant import Mutant

ARMS = "experiments/recipes/_recipe.py"
CHANGED = "experiments/recipes/_changed.py"
RECIPE = "experiments/recipes/_recipe.py"
SMOKE = "experiments/recipes/_changed.py"

PRINTED = "tests/experiments/recipes/test_printed.py::"
PROTOCOL = "tests/experiments/recipes/test_protocol.py::"
SETTINGS = "tests/experiments/recipes/test_changed.py::"
SMALL = "tests/experiments/recipes/test_smoke.py::"
NAMES = "tests/experiments/recipes/test_recipe.py::"

RECIPES = [
    Mutant(
        "SGD trained no longer than SAM",
        ARMS,
        "lengths: tuple[int, ...] = (1, 2)",
        "lengths: tuple[int, ...] = (1,)",
        f"{PROTOCOL}test_sgd_may_train_twice_as_long_and_sam_may_not[table1]",
    ),
    Mutant(
        "SAM's group is the whole batch",
        ARMS,
        "M = 32",
        "M = 256",
        f"{PROTOCOL}test_small_images_come_in_batches_of_256_on_8_accelerators[table4]",
    ),
    Mutant(
        "one number of Table 1 misprinted",
        "experiments/recipes/table1.py",
        "2.1±<.1 2.3±.1",
        "2.1±.1  2.3±.1",
        f"{PRINTED}test_table_1",
    ),
    Mutant(
        "Table 8's errors taken for accuracies",
        "experiments/recipes/table4.py",
        "4.6  6.0  8.7  56.1",
        "95.4 94.0 91.3 43.9",
        f"{PRINTED}test_table_8",
    ),
    Mutant(
        "rho of 80 % noise as of the others",
        "experiments/recipes/table4.py",
        "80: 0.05}",
        "80: 0.1}",
        f"{PROTOCOL}test_label_noise[80]",
    ),
    Mutant(
        "a part by letters in place of words",
        RECIPE,
        'f"{c.name}/".startswith(f"{prefix}/")',
        "c.name.startswith(prefix)",
        f"{NAMES}test_an_unknown_name_gets_the_nearest[table4/noise-4-"
        "unknown cell 'table4/noise-4'; did you mean '.*noise-40']",
    ),
    Mutant(
        "a field that tells cells apart is set all the same",
        CHANGED,
        "if len(values) > 1:",
        "if len(values) > 99:",
        f"{SETTINGS}test_what_tells_cells_apart_cannot_be_set[table4-noise=0.3-message0]",
    ),
    Mutant(
        "rho given to SGD",
        CHANGED,
        "{k: v for k, v in given.items() if _concerns(k, arm, given)}",
        "dict(given)",
        f"{SETTINGS}test_rho_leaves_sgd_alone",
    ),
    Mutant(
        "a smaller run that calls itself the paper's",
        CHANGED,
        '", ".join(words) or "paper"',
        '"paper"',
        f"{SETTINGS}test_a_field_is_set_in_every_arm_and_the_rest_stays",
    ),
    Mutant(
        "a smoke test without groups",
        SMOKE,
        "math.gcd(arm.m, _BATCH // 2)",
        "math.gcd(arm.m, _BATCH)",
        f"{SMALL}test_groups_stay_groups[16-4]",
    ),
]
