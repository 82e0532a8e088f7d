"""Training a server as its owner would have: the default way to make shadow models."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import existing, generator
from splitpriv.attacks.membership_inference.arguments import optional_callable, text
from splitpriv.attacks.membership_inference.identity import identity
from splitpriv.attacks.membership_inference.store import digest
from splitpriv.attacks.membership_inference.target import Outputs, chunks
from splitpriv.attacks.membership_inference.vectorised import is_faster_stacked, refuse_stateful, train_stacked

_OWNER = "ServerTraining"
_ROWS = 256  # records at a time through the layer


@dataclass(frozen=True, kw_only=True, eq=False)
class ServerTraining:
    """Trains a copy of a server on released features: cross-entropy, AdamW, shuffled mini-batches.

    A training procedure for :func:`~splitpriv.attacks.train_shadows`: called with (records, labels, seed), it returns a
    callable from records to logits. The server itself is not changed, and torch's own random numbers are left alone.

    Args:
        server: what is trained a copy of.
        epochs: passes over the records, >= 1.
        lr: learning rate, > 0.
        weight_decay: decoupled, >= 0.
        batch_size: records per step, >= 1.
        reset: draw all parameters and buffers anew (``reset_parameters`` of each module), from the seed; False to start
            from those of ``server``, which is then the server as it was *before* it was trained. Parameters that do
            not require grad are not trained; where none does (a server frozen after its training), all that are drawn
            anew are.
        release: records to what the server is trained on, with fresh noise; None for the records themselves.
        release_labels: labels to those that it is trained on; None for the labels themselves.
        query: records to what it is asked about; None for the records themselves.
        through: what ``release``, ``release_labels`` and ``query`` are, in words that change when they do; needed to
            keep shadow models in a folder.
        device: where to train; None for where the server is.

    Raises:
        InvalidParameterError: an argument is outside its range, the server cannot be copied or has nothing to train, or
            parameters or floating-point buffers are to be reset that no module's ``reset_parameters`` draws.

    Example:
        >>> training = ServerTraining(server=nn.Linear(4, 2), epochs=2)
        >>> training(torch.randn(8, 4), torch.arange(8) % 2, 0)(torch.randn(3, 4)).shape
        torch.Size([3, 2])
    """

    server: nn.Module
    epochs: int = 20
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 128
    reset: bool = True
    release: Callable[[Tensor], Tensor] | None = None
    release_labels: Callable[[Tensor], Tensor] | None = None
    query: Callable[[Tensor], Tensor] | None = None
    through: str = ""
    device: str | torch.device | None = None

    def __post_init__(self) -> None:
        check.module(_OWNER, "server", self.server)
        check.integer(_OWNER, "epochs", self.epochs, 1)
        check.integer(_OWNER, "batch_size", self.batch_size, 1)
        check.positive(_OWNER, "lr", self.lr)
        if check.finite(_OWNER, "weight_decay", self.weight_decay) < 0:
            raise InvalidParameterError(check.message(_OWNER, "weight_decay", ">= 0", self.weight_decay))
        for name in ("release", "release_labels", "query"):
            optional_callable(_OWNER, name, getattr(self, name))
        text(_OWNER, "through", self.through)
        if self.device is not None:
            existing(_OWNER, self.device)
        check.choice(_OWNER, "reset", self.reset, (True, False))
        copied = _copy(self.server)
        if self.reset:
            _refuse_unresettable(self.server)
            _refuse_kept(copied.cpu())  # where torch's own random numbers can be restored cheaply
        elif not any(parameter.requires_grad for parameter in copied.parameters()):
            fix = "Nothing of a start that is frozen would be trained; call requires_grad_(True) on what was."
            constraint = "a module with parameters that require grad"
            raise InvalidParameterError(check.message(_OWNER, "server", constraint, type(copied).__name__, fix))

    def __call__(
        self,
        records: Tensor,  # shape: (batch, *record)
        labels: Tensor,  # shape: (batch,)
        seed: int,
    ) -> Outputs:
        """One trained copy."""
        with private_randomness(seed, self._device):
            server, order = self._fresh(seed), generator(seed, stream="order")
            x, y = self._crossed(records, labels)
            trained = [parameter for parameter in server.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
            server.train()
            for _ in range(self.epochs):
                for rows in chunks(torch.randperm(len(y), generator=order).to(self._device), self.batch_size):
                    loss = F.cross_entropy(server(x[rows]), y[rows])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        return self._outputs(server)

    def many(
        self, records: Sequence[Tensor], labels: Sequence[Tensor], seeds: Sequence[int]
    ) -> list[Outputs]:  # shapes: each (batch, *record), (batch,)
        """Several trained copies at once, as they would be one after another up to rounding.

        Raises:
            InvalidParameterError: the server draws or keeps state when it is trained (dropout, BatchNorm).
        """
        refuse_stateful(_OWNER, self.server)
        servers, crossed = [], []
        for x, y, seed in zip(records, labels, seeds, strict=True):
            with private_randomness(seed, self._device):
                servers.append(self._fresh(seed))
                crossed.append(self._crossed(x, y))
        orders = [generator(seed, stream="order") for seed in seeds]
        settings: dict[str, Any] = {"epochs": self.epochs, "batch_size": self.batch_size}
        train_stacked(servers, crossed, orders, lr=self.lr, weight_decay=self.weight_decay, **settings)
        return [self._outputs(server) for server in servers]

    def untrained(self, seed: int) -> Outputs:
        """The copy that training starts from."""
        with private_randomness(seed, self._device):
            return self._outputs(self._fresh(seed))

    def prefers_many(self) -> bool:
        """Whether several at once were measured to be faster: on a CPU: for small networks of linear layers."""
        return is_faster_stacked(self.server)

    def fingerprint(self) -> str:
        """Text that changes when the training does.

        Raises:
            InvalidParameterError: ``through`` does not say what the callables are.
        """
        if not self.through and not (self.release is None and self.release_labels is None and self.query is None):
            raise InvalidParameterError(
                f"{_OWNER}: through must say what release and query are when shadows are kept, got through=''."
            )
        settings = (self.epochs, self.lr, self.weight_decay, self.batch_size, self.reset, self.through)
        server = _copy(self.server).cpu()
        if self.reset:  # as it is drawn from one seed: what the trained one holds is not what shadows start from
            with private_randomness(0, torch.device("cpu")):
                reset_parameters(server)
        return digest(repr(settings), identity(server))

    @property
    def _device(self) -> torch.device:
        if self.device is not None:
            return torch.device(self.device)
        return next((p.device for p in self.server.parameters()), torch.device("cpu"))

    def _fresh(self, seed: int) -> nn.Module:
        server = _copy(self.server)
        if self.reset:
            reset_parameters(server)
            if not any(parameter.requires_grad for parameter in server.parameters()):
                server.requires_grad_(True)
        return server.to(self._device)

    def _crossed(self, records: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x = records if self.release is None else torch.cat([self.release(part) for part in chunks(records, _ROWS)])
            y = labels if self.release_labels is None else self.release_labels(labels)
        return x.detach().to(self._device), y.long().to(self._device)

    def _outputs(self, server: nn.Module) -> Outputs:
        server.eval().requires_grad_(False)

        def outputs(records: Tensor) -> Tensor:
            with torch.no_grad():
                asked = records if self.query is None else self.query(records)
                logits: Tensor = server(asked.to(self._device))
            return logits

        return outputs


@contextmanager
def private_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Modules draw their parameters and dropout from torch's own generator: seed it inside, restore it behind."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def reset_parameters(server: nn.Module) -> None:
    """Draw all parameters anew, from torch's own generator."""
    for module in server.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if hasattr(module, name):
                getattr(module, name)()
                break


def _copy(server: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(server)
    except Exception as error:
        fix = f"Copying it failed: {error}"
        raise InvalidParameterError(
            f"{_OWNER}: server must be a module that copy.deepcopy can copy, got {type(server).__name__}. {fix}"
        ) from error


def _refuse_unresettable(server: nn.Module) -> None:
    for name, module in server.named_modules():
        own = next(module.parameters(recurse=False), None)
        if own is not None and not hasattr(module, "reset_parameters") and not hasattr(module, "_reset_parameters"):
            raise InvalidParameterError(
                f"{_OWNER}: server must have reset_parameters in each module with parameters, got "
                f"{type(module).__name__} at {name!r}. Give the server as it was before training, with reset=False."
            )


def _refuse_kept(copied: nn.Module) -> None:
    """Raise where a reset leaves a value as it was: a "fresh" shadow would hold what the target has learned."""
    tensors = [*copied.named_parameters(), *copied.named_buffers()]
    floating = {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
    with torch.no_grad(), private_randomness(0, torch.device("cpu")):
        for tensor in floating.values():
            tensor.fill_(math.nan)
        reset_parameters(copied)
        left = [name for name, tensor in floating.items() if bool(tensor.isnan().any())]
    if left:
        raise InvalidParameterError(
            f"{_OWNER}: server must draw each parameter and floating-point buffer anew in reset_parameters, got "
            f"{', '.join(left)} left as they were. Give the server as it was before training, with reset=False "
            "(start= of membership): constants are kept there."
        )
