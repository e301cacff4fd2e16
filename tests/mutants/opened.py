"""Defects of opening finished runs, and the test each must turn red."""

from tests.mutants.mutant import Mutant

MEASURE = "experiments/measure.py"
OPENING = "experiments/opening.py"
TRAINED = "experiments/trained.py"

TESTS = "tests/experiments/opening/"
OF_FOLDERS = f"{TESTS}test_opening.py::"
OF_RUNS = f"{TESTS}test_trained.py::"

OPENED = [
    Mutant(
        "measured on the right labels, not on those that were trained",
        TRAINED,
        "feed = Feed(images, y, experiment",
        "feed = Feed(images, images.train.y, experiment",
        f"{OF_RUNS}test_a_landscape_is_of_the_labels_that_were_trained",
    ),
    Mutant(
        "the end of each of the feed's batches lost",
        TRAINED,
        "rest = [(x[whole:], y[whole:])]",
        "rest = [(x[:0], y[:0])]",
        f"{OF_RUNS}test_batches_are_cut_anew_in_their_order[300]",
    ),
    Mutant(
        "images that are others taken for those of the run",
        TRAINED,
        "if images.digest() == config.data_sha256:",
        "if images.digest() or config.data_sha256:",
        f"{OF_FOLDERS}"
        "test_what_cannot_be_measured_is_one_line_and_exit_code_2[was trained on]",
    ),
    Mutant(
        "the folder inside of a run taken for the run",
        OPENING,
        "if not home.is_relative_to(here):",
        "if not home.exists():",
        f"{OF_FOLDERS}test_what_lies_inside_of_a_run_is_none",
    ),
    Mutant(
        "one column for numbers at several radii",
        MEASURE,
        "if len(radii) > 1:",
        "if len(radii) > 2:",
        f"{OF_FOLDERS}test_runs_of_several_radii_are_measured_at_the_one_that_is_given",
    ),
]
