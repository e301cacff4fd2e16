"""The recipes, what they train, and what has to be known of the paper's numbers.

python benchmarks/recipe_table.py > docs/recipe-notes.md
"""

from __future__ import annotations

from collections.abc import Iterator

from flatmin.experiments.listing import work
from flatmin.experiments.recipes import RECIPES, Recipe


def main() -> None:
    print("\n".join(page()))


def page() -> Iterator[str]:
    recipes = [make() for make in RECIPES.values()]
    for recipe in recipes:
        yield from section(recipe)


def section(recipe: Recipe) -> Iterator[str]:
    yield f"## {recipe.name}\n"
    yield f"{recipe.title}. {len(recipe.cells)} cells, {work(recipe)}\n"
    first = recipe.cells[0]
    places = ", ".join(recipe.headings)
    yield f"A cell is a place in {places}: `{first.name}`.\n"
    for note in recipe.notes:
        yield f"- {escaped(note)}"
    yield ""


def escaped(text: str) -> str:
    return text


if __name__ == "__main__":
    main()
