"""Private encoders against decoders: better than guessing with enough pairs, and at chance where codes say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases_recovery import digits, normal
from torch import Tensor

from splitpriv import InvalidParameterError, LocalPretrainedEncoder, NonFiniteError, ShapeError
from splitpriv.attacks.recovery import EncoderInversion
from splitpriv.attacks.recovery.kernel_ridge import fit_ridge, kernel
from splitpriv.attacks.recovery.surrogate import surrogate_decoder, whitener

NONCE = b"sixteen bytes at least"


def encoder(nonce: bytes = NONCE) -> LocalPretrainedEncoder:
    return LocalPretrainedEncoder((64,), 16, nonce=nonce, channels=32)


def test_leaked_pairs_beat_guessing_and_more_are_better() -> None:
    data = digits()
    codes = encoder()(data.private)
    known = {"known": data.private[200:], "known_released": codes[200:]}
    found = EncoderInversion(pairs=(0, 8, 50, 200))(codes[:200], data.private[:200], data.public, **known)
    assert found.at(0).relative.value == 1  # no pairs and no encoder of one's own: the public mean
    assert found.at(0).identified.value <= 1 / 200  # the one record that is most like the mean
    errors = [point.relative.value for point in found.points]
    assert errors[-1] < errors[-2] < 0.85
    assert found.last.relative.high < 0.6
    assert found.last.identified.low > 0.2
    assert found.vector is None
    assert math.isnan(found.last.recovered.value)


def test_whoever_knows_the_nonce_decodes_an_encoder_that_was_not_fitted() -> None:
    data = digits()
    codes = encoder()(data.private)
    attack = EncoderInversion(pairs=(0,))
    own = attack(codes, data.private, data.public, surrogates=[encoder()(data.public)] * 3)
    assert own.last.relative.high < 0.6
    assert "alignment none" in own.note
    others = [encoder(NONCE + bytes([i]))(data.public) for i in range(3)]
    other = attack(codes, data.private, data.public, surrogates=others)
    assert 0.9 < other.last.relative.value < 1.1  # a surrogate that was left out shows that this does not carry over


def test_pairs_correct_what_surrogates_teach() -> None:
    x, public = normal(150, 10), normal(200, 10, seed=1)
    weights = normal(10, 10, seed=2)
    codes, own = x @ weights, [public @ (weights + 0.1 * normal(10, 10, seed=3 + i)) for i in range(3)]
    leaks = {"known": x[:20], "known_released": codes[:20]}
    both = EncoderInversion(pairs=(0, 20))(codes[20:], x[20:], public, surrogates=own, **leaks)
    alone = EncoderInversion(pairs=(20,))(codes[20:], x[20:], public, **leaks)
    assert both.at(20).relative.value < min(both.at(0).relative.value, alone.at(20).relative.value)
    assert "corrected by pairs" in both.note


def test_codes_on_another_scale_are_brought_home_by_their_moments() -> None:
    x, public = normal(300, 6), normal(300, 6, seed=1)
    weights = torch.linalg.qr(normal(6, 6, seed=2))[0]
    codes, own = 7 * (x @ weights) + 100, [s * (public @ weights) for s in (0.5, 1.0, 3.0)]
    moments = EncoderInversion(pairs=(0,))(codes, x, public, surrogates=own)
    none = EncoderInversion(pairs=(0,), align="none")(codes, x, public, surrogates=own)
    assert moments.last.relative.value < 0.2
    assert "alignment moments" in moments.note
    assert none.last.relative.value > 0.9


def test_codes_that_say_nothing_identify_nobody() -> None:
    # Codes are independent of the records: predictions are too. About one record in all is identified by luck; more
    # than 10 has probability below 1e-7 (Poisson).
    x, codes = normal(300, 12), normal(300, 5, seed=1)
    leaks = {"known": x[:100], "known_released": codes[:100]}
    found = EncoderInversion(pairs=(8, 100))(codes[100:], x[100:], normal(50, 12, seed=2), **leaks)
    for point in found.points:
        assert 200 * point.identified.value <= 10
        assert 0.97 < point.relative.value < 1.2


def test_pairs_in_a_wrong_order_teach_nothing() -> None:
    data = digits()
    codes = encoder()(data.private)
    leaks = {"known": data.private[200:].roll(1, 0), "known_released": codes[200:]}
    found = EncoderInversion(pairs=(200,))(codes[:200], data.private[:200], data.public, **leaks)
    assert 0.9 < found.last.relative.value < 1.1


# The parts --------------------------------------------------------------------------------------------------------


def test_residuals_of_what_is_left_out_are_those_of_refitting() -> None:
    x, y = normal(12, 3).double(), normal(12, 2, seed=1).double() + normal(12, 3).double()[:, :2]
    for groups in (torch.arange(12), torch.arange(12) // 4):
        found = fit_ridge(x, y, groups)
        width, ridge = _told(found.note)
        missed = []
        for name in groups.unique():
            out = groups == name
            gram = kernel(x[~out], x[~out], width) + ridge * torch.eye(int((~out).sum())).double()
            missed.append(y[out] - kernel(x[out], x[~out], width) @ torch.linalg.solve(gram, y[~out]))
        assert found.error == pytest.approx(float(torch.cat(missed).square().mean()), rel=1e-6)
        gram = kernel(x, x, width) + ridge * torch.eye(12).double()
        new = normal(5, 3, seed=2).double()
        assert torch.allclose(found.predict(new), kernel(new, x, width) @ torch.linalg.solve(gram, y))


def _told(note: str) -> tuple[float | None, float]:
    first, ridge = note.split(" kernel, ridge ")
    return (None if first == "linear" else float(first.split()[1])), float(ridge)


def test_a_regression_without_signal_gives_up() -> None:
    found = fit_ridge(normal(40, 3).double(), normal(40, 30, seed=1).double(), torch.arange(40))
    assert found.note == "nothing learned"
    assert torch.equal(found.predict(torch.ones(2, 3).double()), torch.zeros(2, 30).double())
    alone = fit_ridge(normal(4, 3).double(), normal(4, 3).double(), torch.zeros(4, dtype=torch.int64))
    assert alone.note == "nothing learned"  # nothing can be left out


def test_whitened_codes_have_unit_covariance() -> None:
    codes = normal(400, 5).double() @ normal(5, 5, seed=1).double() + 3
    white = whitener(codes)(codes)
    assert torch.allclose(white.mean(0), torch.zeros(5).double(), atol=1e-9)
    assert np.allclose(np.cov(white.numpy().T, bias=True), np.eye(5), atol=1e-2)
    flat = torch.cat([codes, torch.ones(400, 1).double()], 1)
    assert bool(torch.isfinite(whitener(flat)(flat)).all())


def test_a_surrogate_is_judged_on_records_that_others_were_not_shown() -> None:
    # The same codes three times over, unrelated to the records: leaving out one copy only would find a perfect fit.
    public, codes = normal(60, 20).double(), normal(60, 4, seed=1).double()
    found = surrogate_decoder([codes] * 3, public, codes, "auto", 0)
    assert float(found.predict(codes).square().mean()) < 0.1 * float(public.square().mean())
    fooled = fit_ridge(codes.repeat(3, 1), public.repeat(3, 1), torch.arange(3).repeat_interleave(60))
    assert float(fooled.predict(codes).square().mean()) > 0.5 * float(public.square().mean())  # what is avoided


# Refusals ---------------------------------------------------------------------------------------------------------


def leak(x: Tensor, z: Tensor) -> dict[str, Tensor]:
    return {"known": x, "known_released": z}


def test_what_does_not_fit_is_refused() -> None:
    x, z = normal(6, 4), normal(6, 3)
    attack = EncoderInversion(pairs=(0, 2))
    with pytest.raises(InvalidParameterError, match="pairs must be at most the 0 records given"):
        attack(z, x, x)
    with pytest.raises(InvalidParameterError, match="pairs must be at most the 1 records given"):
        attack(z, x, x, **leak(x[:1], z[:1]))
    with pytest.raises(ShapeError, match="known and known_released must hold one row for each of the same records"):
        attack(z, x, x, **leak(x, z[:1]))
    with pytest.raises(ShapeError, match="released and originals must hold one row"):
        attack(z[:2], x, x, **leak(x, z))
    with pytest.raises(ShapeError, match=r"surrogates\[0\] and public must hold one row"):
        attack(z, x, x, surrogates=[z[:2]], **leak(x, z))
    with pytest.raises(
        ShapeError, match="known_released must have codes of the 3 elements of the released ones, got 2"
    ):
        attack(z, x, x, **leak(x, z[:, :2]))
    with pytest.raises(ShapeError, match=r"surrogates\[0\] must have codes of the 3 elements"):
        attack(z, x, x, surrogates=[z[:, :2]], **leak(x, z))
    with pytest.raises(ShapeError, match="originals and public must have as many elements as each other"):
        attack(z, x, x[:, :2], **leak(x, z))
    with pytest.raises(InvalidParameterError, match="public must be two records or more"):
        attack(z, x, x[:1], **leak(x, z))
    with pytest.raises(NonFiniteError, match="released must be finite"):
        attack(z * math.inf, x, x, **leak(x, z))


def test_parameters_are_checked() -> None:
    with pytest.raises(InvalidParameterError, match="pairs must be a tuple of ascending integers >= 0"):
        EncoderInversion(pairs=(-1,))
    with pytest.raises(InvalidParameterError, match="align must be 'auto' or 'none' or 'moments'"):
        EncoderInversion(align="rotation")
