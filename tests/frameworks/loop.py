"""The first row: a loop by hand, with the model prepared as a framework would."""

from tests.frameworks import by_hand
from tests.frameworks.judge import NONE, Host
from tests.frameworks.scenario import HOOKS

HOSTS = [
    # A loop by hand calls no hooks.
    Host("a loop by hand", ("torch",), by_hand.train, expected={(None, HOOKS): NONE})
]
