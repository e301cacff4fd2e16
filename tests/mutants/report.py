"""Defects of the report on runs, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

FOLDERS = "experiments/runs/asked.py"
NUMBERS = "experiments/report/_numbers.py"
FIGURES = "experiments/report/figures.py"
PAGES = "pictures/html.py"
SCALE = "experiments/report/_scale.py"
STORED = "experiments/report/_runs.py"
TABLE = "experiments/table.py"
WORDS = "experiments/report/_words.py"

TESTS = "tests/experiments/report/"
OF_FILES = f"{TESTS}test_report.py::"
OF_NUMBERS = f"{TESTS}test_numbers.py::"

REPORT = [
    Mutant(
        "two arms of one name share a folder",
        FOLDERS,
        "if names.count(name) > 1:",
        "if names.count(name) > 2:",
        "tests/experiments/runs/test_names.py::test_two_arms_never_share_a_folder",
    ),
    Mutant(
        "an error stands where an accuracy should",
        NUMBERS,
        'return 100 - measured["test_error"]',
        'return measured["test_error"]',
        f"{OF_NUMBERS}test_a_cell_reports_its_metric[test_accuracy-86.9]",
    ),
    Mutant(
        "the worse of two arms is reported",
        NUMBERS,
        "return min(self.arms, key=lambda arm: arm.error)",
        "return max(self.arms, key=lambda arm: arm.error)",
        f"{OF_NUMBERS}test_the_better_length_is_reported_beside_the_other",
    ),
    Mutant(
        "a cell is reported while runs of it are missing",
        NUMBERS,
        "if self.done < self.asked or not self.arms:",
        "if not self.done or not self.arms:",
        f"{OF_NUMBERS}test_a_cell_waits_for_every_run_of_every_arm",
    ),
    Mutant(
        "a seed too many stands for one that is missing",
        NUMBERS,
        "min(len(arm.results), self.seeds)",
        "len(arm.results)",
        f"{OF_NUMBERS}test_seeds_that_were_not_asked_for_do_not_replace_a_missing_one",
    ),
    Mutant(
        "the difference has the wrong sign",
        NUMBERS,
        "return ours - self.cell.paper.value",
        "return self.cell.paper.value - ours",
        f"{OF_NUMBERS}test_means_and_intervals_are_students_over_the_seeds",
    ),
    Mutant(
        "runs that two cells report count twice",
        NUMBERS,
        "if run.folder not in seen:",
        "if run.folder:",
        f"{TESTS}test_scale.py::test_runs_that_two_cells_report_count_once",
    ),
    Mutant(
        "runs of two experiments are averaged",
        STORED,
        "        if fields:\n",
        "        if not fields:\n",
        f"{OF_FILES}test_runs_of_two_experiments_are_not_averaged",
    ),
    Mutant(
        "the band of a curve has no lower end",
        FIGURES,
        "low=tuple(map(min, errors)),",
        "low=tuple(map(max, errors)),",
        f"{TESTS}test_panels.py::"
        "test_a_curve_is_mean_and_range_as_far_as_every_seed_has_come",
    ),
    Mutant(
        "labels are HTML in the page",
        PAGES,
        "autoescape=True,",
        "autoescape=False,",
        f"{OF_FILES}test_whatever_is_shown_is_escaped_in_the_page",
    ),
    Mutant(
        "labels are HTML in Markdown",
        TABLE,
        'for special in ("\\\\", "|", "<"):',
        'for special in ("\\\\", "|"):',
        f"{OF_FILES}test_whatever_is_shown_is_no_html_in_markdown",
    ),
    Mutant(
        "a smoke run differs from the paper by a number",
        NUMBERS,
        "or self.cell.paper is None or self.smoke:",
        "or self.cell.paper is None:",
        f"{OF_NUMBERS}test_of_a_smoke_run_no_difference_is_shown",
    ),
    Mutant(
        "a smoke run is a result once another part was trained",
        NUMBERS,
        "asked.smoke or any(run.smoke for arm in arms for run in arm.runs)",
        "asked.smoke",
        f"{OF_NUMBERS}test_a_smoke_run_stays_one_when_another_part_is_trained",
    ),
    Mutant(
        "an arm of twice the epochs is said to have half of them",
        WORDS,
        "getattr(trained, name) * trained.length",
        "getattr(trained, name)",
        f"{TESTS}test_words.py::test_an_arm_is_named_by_settings_and_the_epochs_in_all",
    ),
    Mutant(
        "a smoke run is reported without a warning",
        SCALE,
        "return _SMOKE if any(row.smoke",
        "return _SMOKE if not any(row.smoke or True",
        f"{OF_FILES}test_the_page_warns_above_the_table_of_a_smoke_run",
    ),
    Mutant(
        "another network set beside the paper's number",
        NUMBERS,
        '    "model",\n    "model_options",\n',
        '    "model_options",\n',
        f"{OF_NUMBERS}test_other_data_or_another_network_are_not_set_beside_the_paper"
        "[model]",
    ),
    Mutant(
        "a terminal is sent signs that it lacks",
        TABLE,
        "return Text(printable(text, encoding))",
        "return Text(text)",
        "tests/experiments/test_table.py::"
        "test_a_terminal_is_shown_signs_that_it_has[ascii-+-]",
    ),
    Mutant(
        "the rim of a surface is a staircase",
        "pictures/_scale.py",
        "near + share * (grid - near)",
        "grid + 0 * share",
        "tests/pictures/test_static.py::test_the_rim_of_a_surface_is_no_staircase",
    ),
    Mutant(
        "the sharper of two minima is called the wider",
        "pictures/_seen.py",
        "key=lambda name: rises[name])",
        "key=lambda name: -rises[name])",
        "tests/pictures/test_seen.py::"
        "test_the_wider_minimum_is_named_with_how_far_the_loss_rises",
    ),
]
