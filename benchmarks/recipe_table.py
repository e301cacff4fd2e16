"""The recipes, what they train, and what has to be known of the paper's numbers.

python benchmarks/recipe_table.py > benchmarks/results/recipes.md
"""

from __future__ import annotations

import re

from flatmin.experiments.cli.lists import work
from flatmin.experiments.recipes import RECIPES

#: ``field=value`` in a sentence.
SETTING = re.compile(r"\w+=(?:\{[^}]*\}|\w+)")


def main() -> None:
    recipes = [make() for make in RECIPES.values()]
    print("| recipe | what it shows | cells | what it trains |")
    print("| --- | --- | --- | --- |")
    for recipe in recipes:
        amount = work(recipe).partition("; ±")[0].removesuffix(".")
        print(f"| `{recipe.name}` | {recipe.title} | {len(recipe.cells)} | {amount} |")
    owners: dict[str, list[str]] = {}
    for recipe in recipes:
        for note in recipe.notes:
            owners.setdefault(note, []).append(recipe.name)
    for names in dict.fromkeys(map(tuple, owners.values())):
        print(f"\n**{', '.join(names)}**\n")
        for note in (note for note, held in owners.items() if tuple(held) == names):
            print("- " + SETTING.sub(r"`\g<0>`", note))


if __name__ == "__main__":
    main()
