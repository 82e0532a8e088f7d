"""A small encoder that each participant trains on its own data, and keeps to itself."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import Self

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.layers.defence import Defence
from splitpriv.layers.local_fit import EncoderHistory, Plan, fit_network
from splitpriv.layers.local_records import collect
from splitpriv.layers.public_vector import derive_key, expand, given_or_fresh

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU}
_UNKNOWN = -1


class LocalPretrainedEncoder(Defence):
    r"""A small network that each participant fits on its own labels and keeps: ε = ∞.

    .. math:: s = D\,\phi(C x + c) + d

    with C a convolution (stride 1, no padding) for records (channels, height, width), or a dense matrix for
    vectors, φ the activation, D dense. A defence: every weight starts from the nonce's vector, the
    same for all; :meth:`fit` then trains it on local labels, so different participants end with
    different encoders, and no secret is shared. Before ``fit``, it is a random projection that
    whoever holds the nonce knows.

    :attr:`fitted_records` says how many private records shaped the weights. Each of them influences
    *every* row that the encoder touches afterwards, so a mechanism behind the encoder costs those
    records that number times its record ε, and ∞ while the number is unknown.

    Args:
        feature_shape: shape of one record, (channels, height, width) or (elements,).
        out_features: elements that cross the cut per record, >= 1.
        nonce: at least 16 bytes, the same for all participants; None for a fresh one. It is used once
            and not kept.
        channels: of the convolution; for vectors, rows of the first dense matrix. >= 1.
        kernel_size: side of the convolution's kernel, at most height and width; vectors ignore it.
        activation: ``"relu"``, ``"tanh"``, ``"gelu"`` or ``"elu"``.

    Shape:
        features ``(batch, *feature_shape)``, any float dtype; symbols ``(batch, out_features)``, float32.

    Raises:
        InvalidParameterError: a parameter is outside its range.
        ShapeError: ``feature_shape`` has neither one nor three dimensions.

    Does not protect: ε is infinite, for the records it was fitted on and for those it encodes. The
    weights were learned from private records: whoever gets them, a ``state_dict`` or a pickle can
    attack those records, so they must not leave the participant. Without the weights, an attacker
    with some pairs (record, released record) can train a decoder and reconstruct other records,
    and anyone can compare released records with each other. Weights changed behind this class's
    back, in ways that leave no trace on it, are not counted.

    Source: paper A of the project's references, Case 3.

    Example:
        >>> records, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 2
        >>> encoder = LocalPretrainedEncoder((1, 8, 8), 10, nonce=b"sixteen bytes at least")
        >>> history = encoder.fit((records, labels), epochs=2, progress=False)
        >>> encoder(records).shape
        torch.Size([64, 10])
        >>> encoder
        LocalPretrainedEncoder(defence, ε ∞; (1, 8, 8) to 10, relu; fitted on 64 private records)
    """

    fitted_count: Tensor

    def __init__(
        self,
        feature_shape: Sequence[int],
        out_features: int,
        *,
        nonce: bytes | None = None,
        channels: int = 16,
        kernel_size: int = 3,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        owner = "LocalPretrainedEncoder"
        shape = check.feature_shape(owner, feature_shape)
        if len(shape) not in (1, 3):
            raise ShapeError(
                f"{owner}: feature_shape must be (channels, height, width) or (elements,), "
                f"got feature_shape={shape}. Flatten or reshape the records."
            )
        self.feature_shape = shape
        self.out_features = check.integer(owner, "out_features", out_features, 1)
        self.activation: str = check.choice(owner, "activation", activation, tuple(ACTIVATIONS))
        check.integer(owner, "channels", channels, 1)
        check.integer(owner, "kernel_size", kernel_size, 1, min(shape[1:]) if len(shape) == 3 else None)
        self.network = _network(shape, self.out_features, channels, kernel_size, ACTIVATIONS[activation])
        _start(self.network, derive_key(given_or_fresh(owner, nonce)))
        self.register_buffer("fitted_count", torch.tensor(0, dtype=torch.int64, device="cpu"))
        self._freeze()

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """``(out_features,)``.

        Raises:
            ShapeError: ``shape`` is not ``feature_shape``.
        """
        if check.feature_shape("LocalPretrainedEncoder", shape) != self.feature_shape:
            raise ShapeError(
                f"LocalPretrainedEncoder: features must have shape {self.feature_shape} after the batch, "
                f"got shape={tuple(shape)}."
            )
        return (self.out_features,)

    @property
    def fitted_records(self) -> int | None:
        """How many private records the weights were fitted on, over all fits; None: unknown.

        0 before the first ``fit``, and after fits with ``public=True`` alone. Held-out records
        count, since they chose the weights; a record fitted on twice counts twice. Unknown while
        any weight requires a gradient (someone else may be training it), and from when weights
        were loaded without their count.
        """
        count = int(self.fitted_count)
        known = count >= 0 and not any(parameter.requires_grad for parameter in self.parameters())
        return count if known else None

    def fit(
        self,
        loader: object,
        *,
        epochs: int = 50,
        lr: float = 1e-3,
        holdout: float = 0.1,
        patience: int = 5,
        seed: int | None = None,
        device: torch.device | str | None = None,
        public: bool = False,
        progress: bool = True,
    ) -> EncoderHistory:
        """Train on local labels under a linear head that is thrown away, then freeze.

        Adam on the cross-entropy for integer labels, on the squared error for float ones. The loader is read
        once and its records kept in memory; a part of them is held out by record, never trained on, and
        decides when to stop and which epoch's weights to keep. Fitting again goes on from there.

        All or nothing: after an error or Ctrl-C the encoder is what it was.

        Args:
            loader: DataLoader, Dataset or pair of tensors: features ``(records, *feature_shape)`` and labels,
                integers ``(records,)`` or floats ``(records,)`` or ``(records, outputs)``. Batches of
                the DataLoader's size, else 64.
            epochs: at most this many passes, >= 1.
            lr: learning rate, > 0.
            holdout: share of the records to hold out, in (0, 1); at least one is.
            patience: stop after this many epochs without a better held-out loss, >= 1.
            seed: of the hold-out, the head and the order of records; None for a fresh one.
            device: where to train; None for where the encoder is. It stays where it is.
            public: the records are public, and so not counted in ``fitted_records``.
            progress: show a progress bar.

        Returns:
            The losses of each epoch and which one was kept; as private as the records.

        Raises:
            InvalidParameterError: a parameter is outside its range, the loader is empty or of another
                kind, it gives one label or one record only, or the loss never is finite.
            ShapeError: features or labels are missing or have a wrong shape or dtype.
            NonFiniteError: features or labels hold NaN or infinity.

        Does not check: whether two records belong to one person.
        """
        owner = "LocalPretrainedEncoder"
        check.choice(owner, "public", public, (True, False))
        plan = Plan(
            epochs=check.integer(owner, "epochs", epochs, 1),
            lr=check.positive(owner, "lr", lr),
            holdout=_share(owner, holdout),
            patience=check.integer(owner, "patience", patience, 1),
            device=torch.device(device) if device is not None else self.fitted_count.device,
            generator=_generator(owner, seed),
            progress=progress,
        )
        # Trained aside, so that whatever goes wrong leaves this encoder alone.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(plan.device.type, enabled=False),
        ):
            records = collect(owner, loader, self.feature_shape)
            network = copy.deepcopy(self.network).float()
            history = fit_network(network, self.out_features, records, plan)
        self._adopt(network, 0 if public else history.records)
        return history

    def _adopt(self, network: nn.Module, count: int) -> None:
        before = self.fitted_records
        with torch.no_grad():
            # The count first: it may be too high after an interruption here, never too low.
            self.fitted_count.fill_(_UNKNOWN if before is None else before + count)
            self.network.load_state_dict(network.state_dict())
        self._freeze()

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: ``fit`` alone trains this layer."""
        return super().train(False)

    def _defend(self, features: Tensor) -> Tensor:
        # Detached even if someone unfroze them: no gradient from the server reaches the weights.
        weights = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        dtype = next(iter(weights.values())).dtype
        encoded: Tensor = functional_call(self.network, weights, (features.to(dtype),))
        return encoded.float()

    def _claim(self) -> str:
        count = self.fitted_records
        number = "an unknown number of" if count is None else f"{count:,}"
        size = f"{self.feature_shape} to {self.out_features}, {self.activation}"
        return f"{size}; fitted on {number} private record{'' if count == 1 else 's'}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = f"{prefix}fitted_count"
        if key not in state_dict and any(name.startswith(prefix) for name in state_dict):
            # Weights without their count: whatever they were fitted on, nobody can tell.
            state_dict[key] = torch.full_like(self.fitted_count, _UNKNOWN)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _network(
    shape: tuple[int, ...], out_features: int, channels: int, kernel_size: int, activation: type[nn.Module]
) -> nn.Sequential:
    """First layer, activation, dense; no weight is set, so torch's global generator is left alone."""
    if len(shape) == 3:
        first: nn.Module = nn.Conv2d(shape[0], channels, kernel_size, device="meta", dtype=torch.float32)
        hidden = channels * math.prod(side - kernel_size + 1 for side in shape[1:])
    else:
        first, hidden = nn.Linear(shape[0], channels, device="meta", dtype=torch.float32), channels
    dense = nn.Linear(hidden, out_features, device="meta", dtype=torch.float32)
    parts = {"first": first, "activation": activation(), "flatten": nn.Flatten(), "dense": dense}
    return nn.Sequential(OrderedDict(parts)).to_empty(device="cpu")


def _start(network: nn.Module, key: bytes) -> None:
    """Every weight and bias uniform in ±1/sqrt(fan-in), expanded from the key."""
    for name, module in network.named_children():
        weights = dict(module.named_parameters())
        for kind, parameter in weights.items():
            bound = 1 / math.sqrt(weights["weight"][0].numel())
            start = expand(key, f"encoder {name} {kind}", "uniform", tuple(parameter.shape)) * bound
            parameter.data.copy_(start)


def _share(owner: str, holdout: float) -> float:
    if not isinstance(holdout, Real) or not 0 < holdout < 1:
        fix = "Some records must be trained on, and some held out."
        raise InvalidParameterError(check.message(owner, "holdout", "in (0, 1)", holdout, fix))
    return float(holdout)


def _generator(owner: str, seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(check.integer(owner, "seed", seed, 0, 2**63 - 1))
