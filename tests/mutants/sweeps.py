"""Defects of the search for rho, and the test each must turn red."""

from tests.mutants.mutant import Mutant

GRID = "experiments/sweep/_grid.py"
STUDY = "experiments/sweep/_study.py"
STORAGE = "experiments/sweep/_storage.py"
CHOICE = "experiments/intervals.py"

GRIDS = "tests/experiments/sweep/test_grid.py::"
STUDIES = "tests/experiments/sweep/test_study.py::"
STORAGES = "tests/experiments/sweep/test_storage.py::"
CHOICES = "tests/experiments/test_choice.py::"

SWEEPS = [
    Mutant(
        "nothing held out, so that the test set chooses rho",
        GRID,
        '{"validation": VALIDATION, **values, **single}',
        '{"validation": 1e-9, **values, **single}',
        f"{GRIDS}test_the_grid_is_the_papers_with_a_tenth_held_out",
    ),
    Mutant(
        "a killed process keeps its point",
        STUDY,
        "trial.state != TrialState.RUNNING:\n            return False\n",
        "trial.state != TrialState.RUNNING:\n            return False\n"
        "        return False\n",
        f"{STUDIES}test_a_point_whose_process_was_killed_comes_again_at_once",
    ),
    Mutant(
        "a point taken without its lock",
        STUDY,
        "            mine.enter_context(locked(",
        "            (locked(",
        f"{STUDIES}test_a_point_that_somebody_is_at_goes_to_nobody_else",
    ),
    Mutant(
        "a point's lock let go before its trial has ended",
        STUDY,
        "            return mean(errors)\n",
        "            mine.close()\n            return mean(errors)\n",
        f"{STUDIES}test_a_point_is_locked_until_its_trial_has_ended",
    ),
    Mutant(
        "a point taken by the memory of how it was",
        STUDY,
        "state=failed, skip_if_finished=True",
        "state=failed",
        f"{STUDIES}test_a_trial_that_ends_while_others_look_is_not_taken_for_dead",
    ),
    Mutant(
        "a trial that lives on another machine taken from it",
        STUDY,
        "if self._url is not None or trial.state",
        "if trial.state",
        f"{STUDIES}test_a_point_of_another_machine_is_taken_when_its_heart_stops",
    ),
    Mutant(
        "a trial that had no heartbeat runs for ever",
        STORAGE,
        "        if state == TrialState.RUNNING:\n",
        "        if state == TrialState.FAIL:\n",
        f"{STUDIES}test_a_process_killed_before_its_first_heartbeat_does_not_keep_its_point",
    ),
    Mutant(
        "the same point trained as often as it is in line",
        STUDY,
        "found.setdefault(tuple(point.values()), (point, trial))",
        "found.setdefault((trial.number,), (point, trial))",
        f"{STUDIES}test_points_that_were_put_in_line_twice_are_trained_once",
    ),
    Mutant(
        "a point without a number asked for again for ever",
        STUDY,
        "there = [*self._tried, *(",
        "there = [*(",
        f"{STUDIES}test_what_never_becomes_a_number_does_not_come_for_ever",
    ),
    Mutant(
        "the data base of another program filled with tables",
        STORAGE,
        "or (there and missing == _TABLES)",
        "or False",
        f"{STORAGES}test_the_data_base_of_another_program_is_left_alone",
    ),
    Mutant(
        "the highest error is the best",
        CHOICE,
        "means.index(min(means))",
        "means.index(max(means))",
        f"{CHOICES}test_the_best_has_the_lowest_mean_and_of_equals_the_first",
    ),
    Mutant(
        "a tie that only looks at the means",
        CHOICE,
        "means[k] == means[first] or _close(one, errors[first])",
        "means[k] == means[first]",
        f"{CHOICES}test_a_tie_is_what_the_seeds_do_not_tell_from_the_best",
    ),
]
