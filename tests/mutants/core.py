"""Defects of the arithmetic, and the test that each of them must turn red."""

from tests.mutants.mutant import Mutant

METRIC = "core/_metric.py"
TENSORS = "core/_tensors.py"
TWO_POINT = "core/_two_point.py"
CHECKS = "core/_checks.py"

ARITHMETIC = "tests/core/test_tensors.py::"
BALL = "tests/core/test_ball.py::"
PER_GROUP = "tests/core/test_per_group.py::"
STEP = "tests/optim/test_step.py::"
REFUSALS = "tests/optim/test_refusals.py::"
BASE = "tests/optim/test_base.py::"
QUADRATIC = f"{STEP}test_a_step_on_a_quadratic_is_the_closed_form[0.5]"

CORE = [
    Mutant(
        "l1 norm instead of l2",
        TENSORS,
        "_vector_norm(flat, dtype=torch.float64)",
        "_vector_norm(flat, 1, dtype=torch.float64)",
        f"{PER_GROUP}test_every_group_has_a_ball_of_its_own",
    ),
    Mutant(
        "norm per tensor instead of global",
        METRIC,
        "_at_radii(Multiple(x, scale, ok), rho)",
        "_at_radii([r * t / t.norm() for t in x], rho)",
        f"{BALL}test_tensors_of_different_dtype_share_one_ball[2.0]",
    ),
    Mutant(
        "q instead of p in the exponent",
        METRIC,
        "h_q ** (1 / self.p)",
        "h_q ** (1 / q)",
        f"{BALL}test_a_long_bfloat16_gradient_has_an_exact_norm[3.0]",
    ),
    Mutant(
        "q - 1 becomes q",
        METRIC,
        "else q - 1",
        "else q",
        "tests/optim/test_reference.py::test_25_steps_around_sgd_equal_the_reference[1.5]",
    ),
    Mutant(
        "no scale before the power",
        METRIC,
        "unit = torch.where(s == 0, 1, s)",
        "unit, s = torch.ones_like(s), torch.ones_like(s)",
        f"{BALL}test_loss_scale_changes_nothing[dtype0-powers0-1.01]",
    ),
    Mutant(
        "ties not shared for p = 1",
        METRIC,
        "h_q = shards.power_total(g, unit, q)",
        "h_q = shards.power_total(g, unit, q).clamp(max=1)",
        f"{BALL}test_largest_entries_share_rho_equally_for_p_1[dtype0]",
    ),
    Mutant(
        "ties lost to rounding",
        TENSORS,
        "torch._foreach_div(sizes, _like(s, sizes))",
        "torch._foreach_mul(sizes, _like(1 / s, sizes))",
        f"{ARITHMETIC}test_the_largest_share_is_exactly_one[dtype1]",
    ),
    Mutant(
        "zero gradient not guarded",
        METRIC,
        "ok = (norm > 0) & norm.isfinite() & scale.to(narrow).isfinite()",
        "ok = norm.isfinite()",
        f"{BALL}test_a_zero_gradient_moves_nothing[dtype1-2.0]",
    ),
    Mutant(
        "NaN not zeroed",
        "core/_multiple.py",
        "        ts.zero_unless_(products, self.ok)\n",
        "",
        f"{BALL}test_a_gradient_that_is_not_finite_moves_nothing[dtype1-nan-2.0]",
    ),
    Mutant(
        "zero times NaN",
        TENSORS,
        "bits = [x.view(_INTEGER[x.dtype.itemsize]) for x in real(xs)]",
        "bits = list(xs)",
        f"{BALL}test_a_gradient_that_is_not_finite_moves_nothing[dtype1-nan-2.0]",
    ),
    Mutant(
        "squares of bfloat16 gradients",
        TENSORS,
        "x.float() if x.dtype.itemsize < 4 else x for x in xs",
        "x for x in xs",
        f"{BALL}test_a_long_bfloat16_gradient_has_an_exact_norm[2.0]",
    ),
    Mutant(
        "a zero group stops the others",
        METRIC,
        "unit = torch.where(s == 0, 1, s)",
        "unit = s",
        f"{PER_GROUP}test_a_group_with_a_zero_gradient_does_not_stop_the_others[1.5]",
    ),
    Mutant(
        "long sums in float32",
        TENSORS,
        "flat[:cut].view(-1, _RUN)",
        "flat[None, :cut]",
        f"{ARITHMETIC}test_norm_of_a_long_float32_vector_keeps_its_digits[shape0]",
    ),
    Mutant(
        "squares overflow",
        TENSORS,
        "if _SAFE < n < 1 / _SAFE:",
        "if n > 0:",
        f"{ARITHMETIC}test_norm_of_float32_is_that_of_float64[1e+30]",
    ),
    Mutant(
        "squares vanish",
        TENSORS,
        "if _SAFE < n < 1 / _SAFE:",
        "if n < 1:",
        f"{ARITHMETIC}test_norm_of_float32_is_that_of_float64[1e-30]",
    ),
    Mutant(
        "rho not per group",
        TWO_POINT,
        "radii = [rho[k] for k in group]",
        "radii = [rho[0] for k in group]",
        f"{STEP}test_a_radius_per_group[model]",
    ),
    Mutant(
        "second gradient ignored",
        TWO_POINT,
        "        g_eps = yield above.pop()\n",
        "        g_eps = g or [p.clone() for p in step.w]\n        yield above.pop()\n",
        QUADRATIC,
    ),
    Mutant(
        "first gradient kept for nothing",
        TWO_POINT,
        "        if not self.combine.needs_g:\n            g = []\n",
        "",
        "tests/core/test_two_point.py::test_a_combination_that_needs_no_g_gets_none",
    ),
    Mutant(
        "gate ignored",
        TWO_POINT,
        "if not any(rho) or not self.gate(step):",
        "if not any(rho):",
        f"{BASE}test_20_steps_without_perturbation_are_those_of_the_base"
        "[momentum-closed-gate]",
    ),
    Mutant(
        "NaN let through as a radius",
        CHECKS,
        "if not 0 <= rho < math.inf:",
        "if rho < 0 or rho == math.inf:",
        f"{REFUSALS}test_a_wrong_argument_is_refused[rho nan]",
    ),
    Mutant(
        "cosine from a dot product in float32",
        TENSORS,
        "    return 1 - norm(apart) ** 2 / 2\n",
        "    x, y = (torch.cat([t.float().flatten() for t in v]) for v in (a, b))\n"
        "    return (x @ y / (x.norm() * y.norm())).double() + 0 * norm(apart)\n",
        f"{ARITHMETIC}test_cosine_of_float32_vectors_has_digits_beyond_float32[0.0001]",
    ),
    Mutant(
        "a value read on an accelerator",
        TENSORS,
        "    if may_look(xs):\n",
        "    if True:\n",
        f"{BALL}test_no_value_is_read_on_an_accelerator[kinds0-LpBall-2.0]",
    ),
    Mutant(
        "a factor on the device of the first tensor for all",
        TENSORS,
        "return [c.to(x.device, x.dtype) for x in xs]",
        "return [c.to(one.device, x.dtype) for x in xs]",
        "tests/optim/test_no_sync.py::test_each_parameter_moves_on_its_own_device[2.0]",
    ),
]
