"""The loss that knows the label channel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from splitpriv import InvalidParameterError, LabelLDP, forward_corrected


def test_it_is_cross_entropy_where_labels_cross_unchanged() -> None:
    outputs, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    found = forward_corrected(torch.eye(3))(outputs, labels)
    assert float(found) == pytest.approx(float(F.cross_entropy(outputs, labels)), rel=1e-6)


def test_its_minimum_is_the_true_law() -> None:
    """Plain cross-entropy learns the law of the released labels; this one that of the true ones."""
    channel = LabelLDP(3, epsilon=1.0).transition
    truth = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    released = truth @ channel  # law of the released label
    outputs = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    loss, optimizer = forward_corrected(channel), torch.optim.LBFGS([outputs], max_iter=200, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = sum((released[z] * loss(outputs, torch.tensor([z])) for z in range(3)), torch.zeros(()))
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.allclose(outputs.softmax(1)[0], truth, atol=1e-4)


def test_a_label_that_is_never_released_keeps_the_gradient_finite() -> None:
    channel = LabelLDP(4, epsilon=1.0, prior=[0.45, 0.45, 0.05, 0.05]).transition
    outputs = torch.randn(5, 4, requires_grad=True)
    forward_corrected(channel)(outputs, torch.tensor([0, 1, 0, 1, 0])).backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


@pytest.mark.parametrize("channel", [torch.ones(2, 2), torch.tensor([[1.5, -0.5], [0.0, 1.0]]), torch.ones(2)])
def test_what_is_no_channel_is_refused(channel: torch.Tensor) -> None:
    with pytest.raises(InvalidParameterError, match="channel must be a matrix of probabilities whose rows sum to one"):
        forward_corrected(channel)
