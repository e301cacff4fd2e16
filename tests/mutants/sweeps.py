"""Defects of the search for rho, and the test each must turn red."""

from tests.mutants.mutant import Mutant

GRID = "experiments/sweep/_grid.py"
QUEUE = "experiments/sweep/_queue.py"
TABLE = "experiments/sweep/_table.py"

GRIDS = "tests/experiments/sweep/test_grid.py::"
QUEUES = "tests/experiments/sweep/test_queue.py::"
TABLES = "tests/experiments/sweep/test_table.py::"

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
        QUEUE,
        "            return not self._shared\n",
        "            return False\n",
        f"{QUEUES}test_a_point_whose_process_was_killed_comes_again",
    ),
    Mutant(
        "a point taken without its lock",
        QUEUE,
        "            stack.enter_context(locked(folder))\n",
        "            locked(folder)\n",
        f"{QUEUES}test_a_point_that_somebody_is_at_goes_to_nobody_else",
    ),
    Mutant(
        "a point taken by the memory of how it was",
        QUEUE,
        "        if state != TrialState.WAITING:\n            return False\n",
        "        if state != TrialState.WAITING:\n            return True\n",
        f"{QUEUES}test_a_point_finished_since_the_last_look_is_left_alone",
    ),
    Mutant(
        "a trial that lives on another machine taken from it",
        QUEUE,
        "            return not self._shared\n",
        "            return True\n",
        f"{QUEUES}test_a_point_of_another_machine_is_taken_when_its_heart_stops",
    ),
    Mutant(
        "the same point trained as often as it is in line",
        QUEUE,
        "tuple(sorted(trial.params.items()))",
        "trial.number",
        f"{QUEUES}test_points_that_were_put_in_line_twice_are_trained_once",
    ),
    Mutant(
        "the highest error is the best",
        TABLE,
        "return min(standings",
        "return max(standings",
        f"{TABLES}test_the_best_point_has_the_lowest_mean_and_of_equals_the_first",
    ),
]
