"""Tests for privacy layers, one's own and the shipped ones; needs the extra ``splitpriv[testing]``.

Not imported by ``import splitpriv``: say ``from splitpriv.testing import assert_ldp``.
"""

from importlib.util import find_spec as _find_spec

if _missing := [name for name in ("pytest", "hypothesis") if _find_spec(name) is None]:
    raise ImportError(
        f"splitpriv.testing: pytest and hypothesis must be installed, got no {' and no '.join(_missing)}. "
        "Install them with: pip install 'splitpriv[testing]'"
    )

from splitpriv.testing import strategies
from splitpriv.testing.checks_interface import (
    check_device,
    check_dtype,
    check_finite,
    check_repr,
    check_shape,
    check_symbols,
)
from splitpriv.testing.checks_noise import (
    check_batch_independence,
    check_fresh_noise,
    check_independent_noise,
    check_noise_in_eval,
    check_pickle,
    check_seed,
)
from splitpriv.testing.checks_values import (
    check_decode,
    check_gradient,
    check_log_prob,
    check_packing,
    check_spend,
    check_state_dict,
)
from splitpriv.testing.ldp import assert_ldp
from splitpriv.testing.parametrize import check_ldp, parametrize_with_checks
from splitpriv.testing.result import LDPResult

__all__ = [
    "LDPResult",
    "assert_ldp",
    "check_batch_independence",
    "check_decode",
    "check_device",
    "check_dtype",
    "check_finite",
    "check_fresh_noise",
    "check_gradient",
    "check_independent_noise",
    "check_ldp",
    "check_log_prob",
    "check_noise_in_eval",
    "check_packing",
    "check_pickle",
    "check_repr",
    "check_seed",
    "check_shape",
    "check_spend",
    "check_state_dict",
    "check_symbols",
    "parametrize_with_checks",
    "strategies",
]
