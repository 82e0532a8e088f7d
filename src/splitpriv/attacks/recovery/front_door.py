"""``recover_mask``: from a SplitModel to the attacks that apply to the defence at its cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv._modes import modes_kept
from splitpriv.accounting.simulation import simulation
from splitpriv.attacks.attack import generator
from splitpriv.attacks.cut_view import CutView, view_of
from splitpriv.attacks.recovery.checking import counts, enough
from splitpriv.attacks.recovery.ciphertext_only import CiphertextOnlyMask
from splitpriv.attacks.recovery.defence import Defence, defence_of
from splitpriv.attacks.recovery.encoder_inversion import EncoderInversion
from splitpriv.attacks.recovery.known_plaintext import KnownPlaintext
from splitpriv.attacks.recovery.known_plaintext_mask import KnownPlaintextMask
from splitpriv.attacks.recovery.known_plaintext_relu import KnownPlaintextRelu
from splitpriv.attacks.recovery.report import RecoveryReport
from splitpriv.attacks.recovery.result import RecoveryResult

_OWNER = "recover_mask"
Encoder = Callable[[Tensor], Tensor]
_Recovery = KnownPlaintext | CiphertextOnlyMask | EncoderInversion


def recover_mask(
    model: Any,
    records: Tensor,  # shape: (records, *input)
    *,
    public: Tensor | None = None,  # shape: (n, *input)
    pairs: Iterable[int] = (1, 2, 4, 8, 16),
    released: Iterable[int] | None = None,
    surrogates: Iterable[Encoder] = (),
    step: float | None = None,
    offset: Tensor | None = None,  # shape: (*feature)
    confidence: float = 0.95,
    batch_size: int = 64,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> RecoveryReport:
    """Run every recovery attack that fits the defence at a model's cut: paper A's differential attack, and beyond.

    Records are what leaves the edge, before the defence. Of ``records`` the largest number of pairs, drawn by the
    seed, leaks; the attacks are judged on the others. A mask, with or without a threshold, is attacked by leaked
    pairs, and with public records by what was released alone; a local encoder by leaked pairs and public records.
    Nothing is charged, since nothing leaves, and the model's modes are restored.

    Args:
        model: a SplitModel with one ``RandomVectorMask``, ``ReluSanitizer`` or ``LocalPretrainedEncoder`` at its cut.
        records: inputs of the edge: the private records of the simulation.
        public: inputs that the attacker may use freely; needed for attacks without pairs, and for encoders.
        pairs: numbers of leaked pairs, ascending, >= 1.
        released: numbers of released records for :class:`~splitpriv.attacks.CiphertextOnlyMask`, ascending, >= 2; None
            for powers of 4 up to all. Like ``step`` and ``offset`` for masks with public records alone.
        surrogates: the attacker's own encoders, callables from features at the cut to codes; for encoders alone.
        step: see :class:`~splitpriv.attacks.CiphertextOnlyMask`.
        offset: see :class:`~splitpriv.attacks.CiphertextOnlyMask`.
        confidence: of the intervals, in (0, 1).
        batch_size: records at a time, >= 1.
        seed: which records leak, and of all that the attacks draw, in [0, 2**63).
        device: where the attacks run; None for where the features are. The edge runs where its inputs are.
        progress: show progress bars.

    Returns:
        One :class:`~splitpriv.attacks.RecoveryResult` per attack, and which attack did not run for lack of what.

    Raises:
        InvalidParameterError: a parameter is outside its range or has no use at this cut, there are too few records,
            no defence of a known kind stands at the cut, or an encoder is attacked without public records.
        ShapeError, NonFiniteError: records, public records or offset do not fit together, or are not finite.

    Does not prove: that a defence holds where all of this fails.

    Example:
        >>> model = SplitModel(nn.Identity(), nn.Linear(6, 2), cut=RandomVectorMask(b"sixteen bytes at least"))
        >>> print(recover_mask(model, torch.randn(40, 6), pairs=(1,)))
        RandomVectorMask(defence, ε ∞; sign entries)
        <BLANKLINE>
        KnownPlaintextMask
            leaked pairs  vector   exact  error/guess  identified
                       1   1.000   1.000        0.000       1.000
        <BLANKLINE>
        not run: CiphertextOnlyMask: it needs public records
    """
    view, defence = view_of(model), defence_of(model)
    leaked = counts(_OWNER, "pairs", _listed(pairs))
    sizes = None if released is None else counts(_OWNER, "released", _listed(released), 2)
    own = _encoders(surrogates)
    _check_records(records, public, leaked[-1], defence)
    _check_use(defence, public, surrogates=own, released=sizes, step=step, offset=offset)
    if sizes is not None:
        enough(_OWNER, "released", sizes, len(records) - leaked[-1])
    common = {"confidence": confidence, "batch_size": batch_size, "seed": seed, "device": device, "progress": progress}
    attacks = _attacks(defence, leaked, sizes or _powers(len(records) - leaked[-1]), step, common)
    with simulation(), modes_kept(model), torch.no_grad():
        model.eval()
        scene = _Scene.of(view, records, public, leaked[-1], batch_size, seed)
        vector = defence.vector(scene.features.shape[1:])
        results = [scene.attacked(attack, own, offset, vector) for attack in attacks if scene.suits(attack)]
    skipped = {type(one).__name__: "it needs public records" for one in attacks if not scene.suits(one)}
    return RecoveryReport(view.layer, tuple(results), skipped)


def _attacks(
    defence: Defence, pairs: tuple[int, ...], released: tuple[int, ...], step: float | None, common: dict[str, Any]
) -> list[_Recovery]:
    if defence.kind == "encoder":
        return [EncoderInversion(pairs=(0, *pairs), **common)]
    known: _Recovery = KnownPlaintextMask(pairs=pairs, entries=defence.entries, **common)
    if defence.threshold is not None:
        known = KnownPlaintextRelu(pairs=pairs, entries=defence.entries, threshold=defence.threshold, **common)
    alone = CiphertextOnlyMask(
        records=released, entries=defence.entries, threshold=defence.threshold, step=step, **common
    )
    return [known, alone]


@dataclass(frozen=True)
class _Scene:
    """What crossed and what it was, the part that leaks first."""

    features: Tensor
    released: Tensor
    public: Tensor | None
    leaks: int

    @classmethod
    def of(
        cls, view: CutView, records: Tensor, public: Tensor | None, leaks: int, batch_size: int, seed: int
    ) -> _Scene:
        edge, encode, decode = (view.need(name) for name in ("edge", "encode", "decode"))
        order = torch.randperm(len(records), generator=generator(seed, stream="leaked pairs")).to(records.device)
        parts = torch.split(records[order], batch_size)
        features = check.features(_OWNER, torch.cat([edge(part) for part in parts]))
        released = torch.cat([decode(encode(part)) for part in torch.split(features, batch_size)])
        seen = None if public is None else torch.cat([edge(part) for part in torch.split(public, batch_size)])
        return cls(features, released, seen, leaks)

    def suits(self, attack: _Recovery) -> bool:
        """Whether the attack has what it needs."""
        return self.public is not None or not isinstance(attack, CiphertextOnlyMask)

    def attacked(
        self, attack: _Recovery, surrogates: tuple[Encoder, ...], offset: Tensor | None, vector: Tensor | None
    ) -> RecoveryResult:
        """What the attack makes of it."""
        known, known_released = self.features[: self.leaks], self.released[: self.leaks]
        others = self.released[self.leaks :], self.features[self.leaks :]
        if isinstance(attack, KnownPlaintext):
            return attack(known, known_released, *others, public=self.public, vector=vector)
        public = self.features[:0] if self.public is None else self.public
        if isinstance(attack, CiphertextOnlyMask):
            return attack(*others, public, offset=offset, vector=vector)
        codes = [encoder(public) for encoder in surrogates]
        return attack(*others, public, known=known, known_released=known_released, surrogates=codes)


def _listed(values: Any) -> Any:
    """What can be gone through, as a tuple."""
    return tuple(values) if isinstance(values, Iterable) else values


def _encoders(surrogates: Any) -> tuple[Encoder, ...]:
    found = _listed(surrogates)
    if not isinstance(found, tuple) or not all(map(callable, found)):
        constraint = "callables from features at the cut to codes"
        raise InvalidParameterError(check.message(_OWNER, "surrogates", constraint, surrogates))
    return found


def _check_records(records: Any, public: Any, leaks: int, defence: Defence) -> None:
    """Whether both are batches of inputs of one shape, and there are enough."""
    for name, given in (("records", records), ("public", public)):
        if given is not None or name == "records":
            # An edge may read integers, such as tokens.
            whole = isinstance(given, Tensor) and not given.is_floating_point()
            check.features(_OWNER, given.float() if whole else given, name)
    if len(records) < leaks + 2:
        fix = "Give more records, or ask for fewer pairs."
        constraint = f"{leaks + 2} or more, two beside the pairs that leak"
        raise InvalidParameterError(check.message(_OWNER, "records", constraint, records, fix))
    if defence.kind == "encoder" and public is None:
        fix = "Their mean is what an attacker who learned nothing would say."
        raise InvalidParameterError(check.message(_OWNER, "public", "given where the cut is an encoder", public, fix))
    if public is not None and public.shape[1:] != records.shape[1:]:
        raise ShapeError(
            f"{_OWNER}: public must have records of the shape {tuple(records.shape[1:])} that the private ones have, "
            f"got shape={tuple(public.shape)}."
        )


def _check_use(defence: Defence, public: Any, *, surrogates: Any, **alone: Any) -> None:
    """Whether everything given is of use: what is ignored in silence looks like an attack that failed."""
    encoder = defence.kind == "encoder"
    if surrogates and not encoder:
        fix = "They stand for an encoder that the attacker does not have; a mask needs none."
        raise InvalidParameterError(check.message(_OWNER, "surrogates", "() where the cut is a mask", surrogates, fix))
    for name, value in alone.items():
        if value is not None and (encoder or public is None):
            where = "where the cut is an encoder" if encoder else "without public records"
            fix = "It is for CiphertextOnlyMask, which does not run then."
            raise InvalidParameterError(check.message(_OWNER, name, f"None {where}", value, fix))
    if alone["offset"] is not None and alone["step"] is None:
        fix = "Give both, or neither."
        raise InvalidParameterError(check.message(_OWNER, "offset", "None without a step", alone["offset"], fix))


def _powers(largest: int) -> tuple[int, ...]:
    """4, 16, 64, ... and the largest."""
    return tuple(sorted({4**k for k in range(1, 12) if 4**k < largest} | {largest}))
