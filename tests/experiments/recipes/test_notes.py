"""Where the paper contradicts itself, the recipe that meets it says so."""

import pytest

from flatmin.experiments.recipes import recipe

CONTRADICTIONS = [
    ("table9", "probably a copied row"),
    ("table9", "The WideResNet on CIFAR-100 has the numbers of Table 1"),
    ("table8", "says accuracy. Its numbers are errors"),
    ("table8", "near to SGD without Bootstrap"),
    ("c5", "prints the squares"),
    ("c5", "no rho carries over"),
    ("figure3-left", '"trained for 300 steps"'),
    ("table1", "26-2x6"),
    ("table5", "26-2x6"),
    ("table9", "WideResnet28x6_ShakeShake"),
    ("table5", "credits the WideResNet with 3.59 %"),
    ("table1", "Nesterov's momentum and clips"),
    ("table1", "eq. 1 keeps weight decay outside"),
    ("table1", "m = 32"),
    ("table4", "m=256 is a different experiment"),
    ("table2", '"±<.0" in two cells'),
    ("table2", "four times the gradients"),
    ("table3", "README has rho 0.1"),
    ("table1", "which PyramidNet"),
    ("table1", "does not give the epochs"),
    ("table4", "noisy label can be the right one"),
    ("table4", "does not give learning rate"),
    ("table5", "only cell of Tables 1 to 5"),
    ("table11", "does not state its unit"),
    ("table3", "for L2 alone, 475"),
    ("table8", "with the right labels"),
    ("figure3-middle", "not which"),
    ("figure1", "does not say which"),
]


@pytest.mark.parametrize(("name", "words"), CONTRADICTIONS)
def test_a_contradiction_is_in_the_notes(name: str, words: str) -> None:
    assert sum(words in note for note in recipe(name).notes) == 1


@pytest.mark.parametrize("name", ["table1", "table4", "table5", "table3", "figure1"])
def test_the_rule_of_equal_cost_is_in_the_notes(name: str) -> None:
    assert any("twice as many" in note for note in recipe(name).notes)
