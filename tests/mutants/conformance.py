"""Defects of the conformance suite, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

ACCUMULATION = "conformance/_accumulation.py"
CHECK = "conformance/_check.py"
MODULES = "conformance/_modules.py"
OBJECTS = "conformance/_objects.py"
PROBLEMS = "conformance/_problems.py"

CHECKS = "tests/conformance/test_checks.py::"

CONFORMANCE = [
    Mutant(
        "a refusal after a weight has moved passes",
        CHECK,
        "if moved() == 0:",
        "if moved() >= 0:",
        f"{CHECKS}test_a_refusal_after_a_weight_has_moved_fails",
    ),
    Mutant(
        "an accident passes for a refusal",
        CHECK,
        "REFUSALS = (RuntimeError, TypeError, ValueError)",
        "REFUSALS = (Exception,)",
        f"{CHECKS}test_an_accident_fails",
    ),
    Mutant(
        "SAM's length is asked of another formula",
        CHECK,
        "if adapter.perturbation is not along_gradient:",
        "if adapter.perturbation is None:",
        "tests/conformance/test_peers.py::test_sams_formula_is_not_asked_of_another[C15]",
    ),
    Mutant(
        "the oracle's second pass does not start as the first",
        PROBLEMS,
        "    twin = copy.deepcopy(model)\n    loss_of(model).backward()\n",
        "    loss_of(model).backward()\n    twin = copy.deepcopy(model)\n",
        f"{CHECKS}test_a_sam_by_hand_passes[C31]",
    ),
    Mutant(
        "a table of another length is taken for the same",
        MODULES,
        "if same else torch.inf",
        "if same else 0.0",
        f"{CHECKS}test_buffers_of_two_shapes_differ",
    ),
    Mutant(
        "a resumed run around a wrapper is not looked at",
        OBJECTS,
        "worst([off, lost])",
        "worst([off])",
        f"{CHECKS}test_a_sam_with_the_defect_fails[C36-by hand]",
    ),
    Mutant(
        "what is copied between the passes is not looked at",
        OBJECTS,
        "for each in (*copies, model)",
        "for each in (model,)",
        f"{CHECKS}test_a_sam_with_the_defect_fails[C39-Copying]",
    ),
    Mutant(
        "the last micro-batch alone is right",
        ACCUMULATION,
        'min(off["m-SAM"], off["one perturbation"])',
        "min(off.values())",
        f"{CHECKS}test_a_sam_with_the_defect_fails[C38-by hand]",
    ),
]
