"""What `make test` leaves to `make test-all`: the tests marked ``everything``.

A file may set the mark itself. For the rest there are three rules:

1. Products: the engine is one, so that one method of each kind shows for all of them
   what it promises. The other methods are `everything` in the files of `PRODUCTS`.
   They keep their own formulas (``tests/methods/test_reference_*.py``) in both tiers.
2. Slow: `SLOW` lists what takes long and guards what a change rarely touches.
3. Pages in a browser.
"""

from __future__ import annotations

from typing import Any

import pytest

from flatmin.methods import METHODS

#: One method of each kind, by what it asks of the engine.
KINDS = {
    "two points": "gsam",
    "remembering": "vasso",
    "second order": "second_order_sam",
    "choosing": "esam",
    "several points": "lookbehind_sam",
    "gated": "ae_sam",
}

#: Files that go through every way into the engine with every method.
PRODUCTS = (
    "tests/methods/test_contract.py",
    "tests/methods/test_contract_doors.py",
    "tests/methods/test_contract_scaler.py",
    "tests/distributed/test_methods.py",
    "tests/distributed/test_checkpoint_methods.py",
)

#: The beginnings of names of tests, so that a file stands for all that is in it.
SLOW = (
    # A run of pytest for each named defect.
    "tests/test_mutants.py::test_a_defect_turns_its_test_red",
    "tests/test_mutants.py::test_without_a_defect_every_named_test_is_green",
    "tests/test_mutants.py::test_a_run_that_imports_another_copy_is_an_error",
    # Programs of their own: benchmarks, and what is killed, interrupted or shared.
    "tests/test_benchmarks.py",
    "tests/conformance/test_benchmark.py",
    "tests/conformance/test_cli.py::test_the_module_runs_as_a_program_in_a_folder",
    "tests/diagnostics/test_hessian.py::test_curvlinops_is_loaded_late",
    "tests/experiments/compare/test_command.py::test_killed_at_random_moments",
    "tests/experiments/compare/test_command.py::test_ctrl_c_ends_with_one_line",
    "tests/experiments/compare/test_command.py::test_the_whole_job_on_digits",
    "tests/experiments/compare/test_command.py::test_a_folder_of_another_comparison",
    "tests/experiments/compare/test_command.py::test_processes_that_share_the_work",
    "tests/experiments/loop/test_resume.py::test_a_run_that_is_killed_again_and_again",
    "tests/experiments/loop/test_errors.py::test_a_real_disk_that_is_full",
    "tests/experiments/loop/test_two_processes.py",
    "tests/experiments/loop/test_train_all.py::test_two_processes_share_the_runs",
    "tests/experiments/sweep/test_sweep.py::test_two_processes_that_start_together",
    "tests/experiments/sweep/test_sweep.py::test_a_killed_process_leaves_its_point",
    "tests/experiments/sweep/test_workers.py::test_workers_are_processes",
    # Stopped after a line of metrics; in the middle of an epoch it is quick.
    "tests/experiments/loop/test_resume.py::"
    "test_a_run_that_is_left_by_an_exception_ends_alike[7-",
    # Every number of three runs, measured twice.
    "tests/experiments/test_measure.py::test_the_table_has_the_numbers",
    # Every recipe and every method trained by the command line's loop.
    "tests/experiments/loop/test_train_all.py::test_every_run_of_a_recipe",
    "tests/experiments/loop/test_methods.py::test_every_method_trains",
    # Runs of a shake-shake network, which others go through at a tenth of its cost.
    "tests/experiments/loop/test_dry_run.py::"
    "test_of_a_small_recipe_it_is_what_the_runs_take[table1/cifar10/shake-shake]",
    "tests/experiments/loop/test_resume.py::"
    "test_a_run_that_is_left_by_an_exception_ends_alike[5-looksam on shake-shake]",
    "tests/experiments/loop/test_resume.py::test_without_checkpoint_in_time_it_begins",
    # The whole suite collected by a program of its own.
    "tests/test_tiers.py",
    # The zoo of models, at full size.
    "tests/experiments/models/test_registry.py::test_networks_for_imagenet_are_timms",
    "tests/experiments/models/test_architectures.py::test_parameters_are_those_of",
    "tests/experiments/models/test_architectures.py::test_classes_and_channels_are",
    # A program that imports as that of tests/test_public_api.py does.
    "tests/integrations/test_files.py::test_flatmin_imports_no_host",
    # Trainers at work; quick cells of the matrix go through the same passes.
    "tests/frameworks/test_matrix.py::test_the_quick_cells_of_sam[fabric_host",
    "tests/frameworks/test_matrix.py::test_the_quick_cells_of_sam[transformers_host",
    "tests/integrations/test_transformers.py::test_a_built_sam_and_another_base",
    "tests/integrations/test_transformers.py::test_a_second_train_goes_on",
    "tests/integrations/test_transformers.py::test_a_trainer_of_another_class",
    "tests/integrations/test_transformers.py::test_label_smoothing_sees_labels",
    "tests/integrations/test_transformers.py::test_sharpness_is_the_mean",
    # A C++ compiler at work.
    "tests/optim/test_compile.py::test_the_default_backend_trains_as_before",
)


def is_for_test_all(name: str, parameters: dict[str, Any]) -> bool:
    """Whether the rules leave a test to `make test-all`."""
    if name.startswith(SLOW):
        return True
    method = parameters.get("name")
    product = name.partition("::")[0] in PRODUCTS and method in METHODS
    return product and method not in KINDS.values()


def mark(items: list[pytest.Item]) -> None:
    """Mark as ``everything`` what the rules leave to `make test-all`."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        parameters = {} if callspec is None else callspec.params
        browser = item.get_closest_marker("browser") is not None
        if browser or is_for_test_all(item.nodeid, parameters):
            item.add_marker(pytest.mark.everything)
