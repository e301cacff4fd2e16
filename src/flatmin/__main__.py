"""The program: ``flatmin``, or ``python -m flatmin``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one line what it needs."""
    try:
        from flatmin.experiments.cli import main as run
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("flatmin"):
            raise
        sys.stderr.write(
            f"flatmin: the command line needs {missing.name}. "
            'Install it: pip install "flatmin[experiments]"\n'
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
