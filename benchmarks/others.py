"""The same mechanisms in other libraries, when they are installed: one value at a time, so for few."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Way = Callable[[], object]


def opendp(x: Tensor, epsilon: float, sensitivity: float) -> dict[str, Way]:
    """OpenDP's randomized response, and its Laplace mechanism over a vector."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    respond = dp.m.make_randomized_response_bool(float(torch.sigmoid(torch.tensor(epsilon, dtype=torch.float64))))
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l1_distance(T=float)
    noise = dp.m.make_laplace(*space, scale=sensitivity / epsilon)
    half = sensitivity / 2
    return {
        "randomized response": lambda: [respond(bit) for bit in (x > 0).tolist()],
        "Laplace": lambda: noise(torch.where(x.abs() < half, x, 0.0).tolist()),
    }


def diffprivlib(x: Tensor, epsilon: float, sensitivity: float) -> dict[str, Way]:
    """IBM diffprivlib's binary and Laplace mechanisms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffprivlib.mechanisms import Binary, Laplace

    respond = Binary(epsilon=epsilon, value0="0", value1="1")
    noise = Laplace(epsilon=epsilon, sensitivity=sensitivity)
    half = sensitivity / 2
    return {
        "randomized response": lambda: [respond.randomise("1" if bit else "0") for bit in (x > 0).tolist()],
        "Laplace": lambda: [noise.randomise(v) for v in torch.where(x.abs() < half, x, 0.0).tolist()],
    }


LIBRARIES = {"OpenDP": opendp, "diffprivlib": diffprivlib}
