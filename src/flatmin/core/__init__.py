"""The joints of sharpness-aware minimization, as pure functions on lists of tensors.

A method is a program: it asks for gradients at ``w`` and ``w + eps`` and returns the
vector to descend. It never touches a parameter; `flatmin.SAM` does.
"""

from flatmin.core import (
    combine,
    examples,
    filters,
    gates,
    nested,
    posterior,
    programs,
    radii,
    scales,
    sources,
    sparse,
    vectors,
)
from flatmin.core._decay import Decayed
from flatmin.core._joints import (
    Combine,
    Filter,
    Gate,
    Perturbed,
    Radius,
    Scale,
    Source,
    always,
    everything,
    fresh,
    of_group,
)
from flatmin.core._metric import (
    LpBall,
    Metric,
    PerGroup,
    PerLayer,
    Shortened,
    Unnormalised,
)
from flatmin.core._program import (
    Ascent,
    Ask,
    Batch,
    Gradients,
    Memory,
    Method,
    Program,
    Step,
    fraction,
    whole,
)
from flatmin.core._scope import Group, Replica, Scope, World
from flatmin.core._two_point import TwoPoint

__all__ = [
    "Ascent",
    "Ask",
    "Batch",
    "Combine",
    "Decayed",
    "Filter",
    "Gate",
    "Gradients",
    "Group",
    "LpBall",
    "Memory",
    "Method",
    "Metric",
    "PerGroup",
    "PerLayer",
    "Perturbed",
    "Program",
    "Radius",
    "Replica",
    "Scale",
    "Scope",
    "Shortened",
    "Source",
    "Step",
    "TwoPoint",
    "Unnormalised",
    "World",
    "always",
    "combine",
    "everything",
    "examples",
    "filters",
    "fraction",
    "fresh",
    "gates",
    "nested",
    "of_group",
    "posterior",
    "programs",
    "radii",
    "scales",
    "sources",
    "sparse",
    "vectors",
    "whole",
]
