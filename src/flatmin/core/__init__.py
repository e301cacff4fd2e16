"""The joints of sharpness-aware minimization, as pure functions on lists of tensors.

A method is a program: it asks for gradients at ``w`` and ``w + eps`` and returns the
vector to descend. It never touches a parameter; `flatmin.SAM` does.
"""

from flatmin.core import (
    adapters,
    combine,
    examples,
    filters,
    gates,
    nested,
    parts,
    posterior,
    programs,
    radii,
    scales,
    sources,
    sparse,
    stretch,
    vectors,
)
from flatmin.core._batch import Batch, all_examples, fraction
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
from flatmin.core._method import Joint, Method, Traits
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
    Gradients,
    Memory,
    Point,
    Program,
    Step,
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
    "Joint",
    "LpBall",
    "Memory",
    "Method",
    "Metric",
    "PerGroup",
    "PerLayer",
    "Perturbed",
    "Point",
    "Program",
    "Radius",
    "Replica",
    "Scale",
    "Scope",
    "Shortened",
    "Source",
    "Step",
    "Traits",
    "TwoPoint",
    "Unnormalised",
    "World",
    "adapters",
    "all_examples",
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
    "parts",
    "posterior",
    "programs",
    "radii",
    "scales",
    "sources",
    "sparse",
    "stretch",
    "vectors",
]
