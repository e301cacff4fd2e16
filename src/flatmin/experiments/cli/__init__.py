"""The command line: verbs, a recipe name, ``--set field=value``; nothing else."""

from flatmin.experiments.cli.app import main

__all__ = ["main"]
