"""Defects of the command line, and the test each must turn red."""

from tests.mutants.mutant import Mutant

APP = "experiments/cli/app.py"
CONFIG = "experiments/config.py"
OUTPUT = "experiments/cli/output.py"

SETTINGS = "tests/experiments/test_config.py::"
PROGRAM = "tests/experiments/test_cli.py::"

COMMANDS = [
    Mutant(
        "the last of two settings of a field wins in silence",
        CONFIG,
        "if name in values:",
        "if False:",
        f"{SETTINGS}test_a_bad_setting_is_one_line_on_stderr[twice]",
    ),
    Mutant(
        "a negative zero in the name of a folder",
        CONFIG,
        "float(digits) + 0.0",
        "float(digits)",
        f"{SETTINGS}test_a_negative_zero_is_zero[-0.0]",
    ),
    Mutant(
        "NaN in a JSON document",
        OUTPUT,
        "return None if isinstance(value, float) and not math.isfinite(value) else",
        "return",
        f"{PROGRAM}test_json_has_null_for_what_is_no_number",
    ),
    Mutant(
        "a sign that the terminal lacks ends the program",
        OUTPUT,
        "stream.reconfigure(errors=_ERRORS)",
        "pass",
        f"{PROGRAM}test_what_an_encoding_lacks_is_spelled",
    ),
    Mutant(
        "a word of any length repeated in a message",
        APP,
        'r"\\S{200,}"',
        'r"\\S{200000,}"',
        f"{PROGRAM}test_a_bad_argument_is_one_short_line[arguments17-No such command]",
    ),
]
