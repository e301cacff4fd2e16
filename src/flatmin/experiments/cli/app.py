"""The program: its commands, and its messages when it cannot go on."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer

from flatmin.experiments.cli.finished import export, landscape, report, sharpness
from flatmin.experiments.cli.lists import fields, methods, recipes
from flatmin.experiments.cli.options import examples
from flatmin.experiments.cli.output import fit_encoding, open_streams, silence
from flatmin.experiments.cli.train import compare, preflight, sweep, train
from flatmin.experiments.errors import BadInput, shortened

#: Exit code of a program that Ctrl-C ended; newer typer returns it by itself.
_INTERRUPTED = 130

#: The commands in the order of the help, each with examples.
COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    compare: (
        "flatmin compare",
        "flatmin compare photos/ --model resnet18 --weights resnet18.safetensors",
        "flatmin compare photos/ --weights none --set seeds=1 --dry-run",
    ),
    preflight: (
        "flatmin preflight",
        "flatmin preflight photos/ --model resnet18 --json",
    ),
    train: (
        "flatmin train table4/noise-40/sam --dry-run",
        "flatmin train table4/noise-40/sam --set epochs=20 --set seeds=1",
        "flatmin train figure1 --smoke --out runs/try",
    ),
    sweep: (
        "flatmin sweep table4/noise-40/sam",
        "flatmin sweep table4/noise-40/sam --set 'rho=[0.05,0.1]' --workers 2",
    ),
    sharpness: (
        "flatmin sharpness runs/figure1 --rho 0.05",
        "flatmin sharpness runs/figure1 --json > sharpness.json",
        "flatmin sharpness a.safetensors b.pth --model resnet18 --data photos",
    ),
    landscape: (
        "flatmin landscape runs/figure1",
        "flatmin landscape runs/figure1 --points 51 --radius 0.5",
        "flatmin landscape a.safetensors b.pth --model resnet18 --data photos",
    ),
    report: (
        "flatmin report",
        "flatmin report runs --json > numbers.json",
    ),
    export: (
        "flatmin export runs/figure1/sam/x1/seed-0",
        "flatmin export runs/table4/noise-40/sam/x1/seed-0 --out sam-40",
    ),
    methods: ("flatmin methods", "flatmin methods --json"),
    recipes: (
        "flatmin recipes",
        "flatmin recipes table4/noise-40",
        "flatmin recipes table4 --json",
    ),
    fields: ("flatmin fields", "flatmin fields --json"),
}

app = typer.Typer(
    name="flatmin",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _examples in COMMANDS.items():
    app.command(epilog=examples(_examples))(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        packages = ", ".join(f"{name} {version(name)}" for name in ("flatmin", "torch"))
        typer.echo(f"{packages}, python {platform.python_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def verbs(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the versions of flatmin, torch and Python.",
        ),
    ] = False,
) -> None:
    """Sharpness-aware minimization for PyTorch."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the program; bad input is one line on stderr and exit code 2."""
    open_streams()
    fit_encoding()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # For instance by `flatmin methods | head -1`.
        silence()
        code = 1
    sys.exit(code)


def _run() -> Any:
    try:
        _check_encoding(sys.argv)
        code: Any = app(standalone_mode=False, prog_name="flatmin")
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except (BadInput, OSError) as error:
        code = _refuse(str(error))
    except Exception as error:
        # typer's usage errors have no public base class; they all have this method.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        code = _refuse(shortened(message(), 400))
    if code == _INTERRUPTED:
        typer.echo("\nflatmin: stopped. The same command continues here.", err=True)
    return code


def _check_encoding(arguments: list[str]) -> None:
    for one in arguments:
        if any("\ud800" <= sign <= "\udfff" for sign in one):
            raise BadInput(f"an argument is not UTF-8: {shortened(ascii(one))}.")


def _refuse(message: str) -> int:
    """Print one line in which no word, such as a path, is longer than 200 signs."""
    line = re.sub(r"\S{200,}", lambda word: shortened(word.group()), message)
    sys.stderr.write(f"flatmin: {' '.join(line.split())}\n")
    return 2
