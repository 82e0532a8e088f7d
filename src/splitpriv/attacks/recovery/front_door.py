"""``recover_mask``: from a SplitModel to the attacks that apply to the defence at its cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv._modes import modes_kept
from splitpriv.accounting.simulation import simulation
from splitpriv.attacks.attack import generator
from splitpriv.attacks.cut_view import CutView, view_of
from splitpriv.attacks.recovery.checking import counts
from splitpriv.attacks.recovery.ciphertext_only import CiphertextOnlyMask
from splitpriv.attacks.recovery.defence import Defence, defence_of
from splitpriv.attacks.recovery.encoder_inversion import EncoderInversion
from splitpriv.attacks.recovery.known_plaintext_mask import KnownPlaintextMask
from splitpriv.attacks.recovery.known_plaintext_relu import KnownPlaintextRelu
from splitpriv.attacks.recovery.report import RecoveryReport
from splitpriv.attacks.recovery.result import RecoveryResult


def recover_mask(
    model: Any,
    records: Tensor,  # shape: (records, *input)
    *,
    public: Tensor | None = None,  # shape: (n, *input)
    pairs: tuple[int, ...] = (1, 2, 4, 8, 16),
    released: tuple[int, ...] | None = None,
    surrogates: Sequence[Callable[[Tensor], Tensor]] = (),
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
            for powers of 4 up to all.
        surrogates: the attacker's own encoders, callables from features at the cut to codes.
        step: see :class:`~splitpriv.attacks.CiphertextOnlyMask`.
        offset: see :class:`~splitpriv.attacks.CiphertextOnlyMask`.
        confidence: of the intervals, in (0, 1).
        batch_size: records at a time, >= 1.
        seed: which records leak, and of all that the attacks draw, in [0, 2**63).
        device: where the attacks run; None for where the features are. The edge runs where its inputs are.
        progress: show progress bars.

    Returns:
        One :class:`~splitpriv.attacks.RecoveryResult` per attack.

    Raises:
        InvalidParameterError: a parameter is outside its range, there are too few records, no defence of a known
            kind stands at the cut, or an encoder is attacked without public records.

    Does not prove: that a defence holds where all of this fails.

    Example:
        >>> model = SplitModel(nn.Identity(), nn.Linear(6, 2), cut=RandomVectorMask(b"sixteen bytes at least"))
        >>> print(recover_mask(model, torch.randn(40, 6), pairs=(1,)))
        RandomVectorMask(defence, ε ∞; sign entries)
        <BLANKLINE>
        KnownPlaintextMask
            leaked pairs  vector   exact  error/guess  identified
                       1   1.000   1.000        0.000       1.000
    """
    owner = "recover_mask"
    counts(owner, "pairs", pairs)
    if released is not None:
        counts(owner, "released", released, 2)
    view = view_of(model)
    defence = defence_of(model)
    if len(records) < pairs[-1] + 2:
        fix = "Give more records, or ask for fewer pairs."
        constraint = f"{pairs[-1] + 2} or more, two beside the pairs that leak"
        raise InvalidParameterError(check.message(owner, "records", constraint, records, fix))
    if defence.kind == "encoder" and public is None:
        fix = "Their mean is what an attacker who learned nothing would say."
        raise InvalidParameterError(check.message(owner, "public", "given where the cut is an encoder", public, fix))
    common = {"confidence": confidence, "batch_size": batch_size, "seed": seed, "device": device, "progress": progress}
    with simulation(), modes_kept(model), torch.no_grad():
        model.eval()
        scene = _Scene.of(view, records, public, pairs[-1], batch_size, seed)
        if defence.kind == "encoder":
            results = [_on_encoder(scene, pairs, surrogates, common)]
        else:
            results = _on_mask(scene, defence, pairs, released, step, offset, common)
    return RecoveryReport(view.layer, tuple(results))


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
        features = torch.cat([edge(part) for part in torch.split(records[order], batch_size)])
        released = torch.cat([decode(encode(part)) for part in torch.split(features, batch_size)])
        seen = None if public is None else torch.cat([edge(part) for part in torch.split(public, batch_size)])
        return cls(features, released, seen, leaks)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        return self.features[: self.leaks], self.released[: self.leaks]

    @property
    def others(self) -> tuple[Tensor, Tensor]:
        return self.released[self.leaks :], self.features[self.leaks :]


def _on_mask(
    scene: _Scene,
    defence: Defence,
    pairs: tuple[int, ...],
    released: tuple[int, ...] | None,
    step: float | None,
    offset: Tensor | None,
    common: dict[str, Any],
) -> list[RecoveryResult]:
    vector = defence.vector(scene.features.shape[1:])
    known: KnownPlaintextMask | KnownPlaintextRelu
    if defence.threshold is None:
        known = KnownPlaintextMask(pairs=pairs, entries=defence.entries, **common)
    else:
        known = KnownPlaintextRelu(pairs=pairs, entries=defence.entries, threshold=defence.threshold, **common)
    results = [known(*scene.pairs, *scene.others, public=scene.public, vector=vector)]
    if scene.public is not None:
        sizes = released or _powers(len(scene.others[0]))
        alone = CiphertextOnlyMask(
            records=sizes, entries=defence.entries, threshold=defence.threshold, step=step, **common
        )
        results.append(alone(*scene.others, scene.public, offset=offset, vector=vector))
    return results


def _on_encoder(
    scene: _Scene, pairs: tuple[int, ...], surrogates: Sequence[Callable[[Tensor], Tensor]], common: dict[str, Any]
) -> RecoveryResult:
    known, known_released = scene.pairs
    public = scene.features[:0] if scene.public is None else scene.public
    attack = EncoderInversion(pairs=(0, *pairs), **common)
    codes = [surrogate(public) for surrogate in surrogates]
    return attack(*scene.others, public, known=known, known_released=known_released, surrogates=codes)


def _powers(largest: int) -> tuple[int, ...]:
    """4, 16, 64, ... and the largest."""
    return tuple(sorted({4**k for k in range(1, 12) if 4**k < largest} | {largest}))
