"""Defects of opening finished runs, and the test each must turn red."""

from tests.mutants.mutant import Mutant

MEASURE = "experiments/measure.py"
ASKED = "experiments/runs/asked.py"
FILES = "experiments/runs/files.py"
IMAGES = "experiments/runs/images.py"
OPENED_RUNS = "experiments/runs/opened.py"
RECORD = "experiments/runs/record.py"

TESTS = "tests/experiments/runs/"
OF_FOLDERS = f"{TESTS}test_opening.py::"
OF_RUNS = f"{TESTS}test_opened.py::"
OF_DAMAGE = (
    f"{TESTS}test_damage.py::test_damage_is_one_line_that_names_the_file_and_what_to_do"
)

OPENED = [
    Mutant(
        "measured on the right labels, not on those that were trained",
        OPENED_RUNS,
        "batches = Batches(images, y, experiment",
        "batches = Batches(images, images.train.y, experiment",
        f"{OF_RUNS}test_a_landscape_is_of_the_labels_that_were_trained",
    ),
    Mutant(
        "the end of each batch lost",
        OPENED_RUNS,
        "rest = [(x[whole:], y[whole:])]",
        "rest = [(x[:0], y[:0])]",
        f"{OF_RUNS}test_batches_are_cut_anew_in_their_order[300]",
    ),
    Mutant(
        "images that are others taken for those of the run",
        OPENED_RUNS,
        "if images.digest() != run.config.data_sha256:",
        "if False:",
        f"{OF_DAMAGE}[other images]",
    ),
    Mutant(
        "the folder inside of a run taken for the run",
        OPENED_RUNS,
        "if run.finished and run.folder.is_relative_to(here)]",
        "if run.finished]",
        f"{OF_FOLDERS}test_what_lies_inside_of_a_run_is_none",
    ),
    Mutant(
        "one column for numbers at several radii",
        MEASURE,
        "if len(radii) > 1:",
        "if len(radii) > 2:",
        f"{OF_FOLDERS}test_runs_of_several_radii_are_measured_at_the_one_that_is_given",
    ),
    Mutant(
        "labels that are no class",
        RECORD,
        "((y < 0) | (y >= classes)).any()",
        "(y < 0).any()",
        f"{OF_DAMAGE}[labels too large]",
    ),
    Mutant(
        "a damaged line taken for one that was cut short",
        FILES,
        """        records.append(_line(line, kind, f"{path}, line {k},"))
""",
        """        records += _whole(line, kind)
""",
        f"{OF_DAMAGE}[metrics.jsonl, line 1,: cut short]",
    ),
    Mutant(
        "JSON that is too deep ends in a traceback",
        FILES,
        """    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
""",
        """    try:
        found = json.loads(path.read_bytes())
    except ValueError:
""",
        f"{OF_DAMAGE}[result.json: deep]",
    ),
    Mutant(
        "fewer seeds of a later command complete a row",
        ASKED,
        "max(asked.seeds, parts.get(part, 0))",
        "asked.seeds",
        "tests/experiments/report/test_numbers.py::"
        "test_fewer_seeds_of_the_same_part_do_not_complete_a_row",
    ),
    Mutant(
        "a picture is shown to the network as RGB levels from 0 to 255",
        IMAGES,
        "self._cut(pil_to_tensor(flat)[None]).float() / 255",
        "self._cut(pil_to_tensor(flat)[None]).float()",
        f"{TESTS}test_export.py::test_the_transform_is_that_of_the_tests[None]",
    ),
    Mutant(
        "a folder that cannot be read taken for an empty one",
        FILES,
        "os.walk(folder, onerror=refuse_unreadable)",
        "os.walk(folder)",
        f"{OF_FOLDERS}test_a_folder_that_cannot_be_read_hides_no_run[table4]",
    ),
    Mutant(
        "a file of another version called damaged",
        FILES,
        "        if unknown:\n",
        "        if unknown and False:\n",
        f"{OF_DAMAGE}[config.json of another version: field]",
    ),
    Mutant(
        "an old run without a description of its images is another experiment",
        RECORD,
        "        if self.config.images is not None:\n            return config\n",
        "        if self.begun:\n            return config\n",
        f"{TESTS}test_record.py::"
        "test_a_run_of_an_older_version_without_a_setting_goes_on[images]",
    ),
    Mutant(
        "tensors that share memory end a training",
        "experiments/runs/network.py",
        "w.clone() if place in seen else w",
        "w",
        f"{TESTS}test_export.py::"
        "test_what_is_packed_has_the_values_of_tensors_that_share_memory",
    ),
    Mutant(
        "a landscape drawn among the images",
        "experiments/landscape.py",
        "            check_outside(out, expanded(run.experiment.data))\n",
        "            pass\n",
        "tests/experiments/test_landscape.py::"
        "test_a_landscape_is_not_drawn_among_the_images_of_its_networks[file]",
    ),
]
