"""Every check can fail: layers with one planted fault each, noticed by the checks named and by no other."""

from __future__ import annotations

import re

import pytest
import torch
from broken import BROKEN, OnAnotherDevice
from broken_records import WORDS
from torch import nn

from splitpriv.testing import check_device
from splitpriv.testing.parametrize import CHECKS

EXAMPLE = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
# What the check that a layer is here for says of it.
SAID = {
    "QuietInEval": "check_noise_in_eval: noise must be on in every mode, got none in eval mode.",
    "WeakerInEval": "check_noise_in_eval: noise must be the same in train and eval mode, got another law.",
    "DrawnOnce": "check_fresh_noise: each call must draw anew, got the same symbols again.",
    "SharedByRecords": "noise must be independent, got records of one batch that share it.",
    "SharedByElements": "noise must be independent, got neighbouring elements that share it.",
    "SharedByTheBatch": "noise must be independent, got records of one batch that share it.",
    "SeedIgnored": "check_seed: the layer's source must decide its noise, got noise from elsewhere.",
    "FollowsTorchSeed": "check_seed: noise that torch.manual_seed repeats must be declared",
    "CopiesRepeat": "check_pickle: copies must draw noise of their own, got the same symbols from two of them.",
    "LooksAtNeighbour": "a record's symbols must depend on it alone, got another law beside other records.",
    "CentresTheBatch": "a record's symbols must depend on it alone, got another law beside other records.",
    "ClaimsHalf": r"the table must cost at most the epsilon claimed, 0\.5, got 1 between inputs 0 and 1",
    "RecordPaysForOne": "check_spend: a record must pay for all of its uses, got Spend",
    "ClaimsOneUse": "assert_ldp: one use must cost at most the epsilon claimed, 1, got at least .* ratio of records",
    "OtherTable": "encode must follow the table that the layer declares, got symbol . in .* are expected",
    "TailCut": "encode must follow the table that the layer declares, got symbol",
    "ClaimsHalfWithoutTable": r"one use must cost at most the epsilon claimed, 0\.5, got at least 0\.9",
    "FloatLaplace": "one use must cost at most the epsilon claimed, 2, got at least .* by grid of value",
    "TakesNaN": "check_finite: encode must refuse nan in features, got a result",
    "ShowsFeatures": "the error of encode must say what is wrong and show no feature",
    "OutsideAlphabet": r"check_symbols: symbols must be in \[0, 2\), got \[1, 2\]",
    "DecodeLooksBack": "check_decode: decode must depend on the symbols alone, got values that changed",
    "ForwardSkipsNoise": r"check_decode: forward must be decode\(encode\(x\)\), got another law",
    "Flattens": r"check_shape: forward must return shape \(., 3, 4, 4\), got shape=\(., 48\)",
    "AlwaysFloat": r"check_dtype: the layer must keep torch.float16, got dtype=torch.float32",
    "NaNSlope": "check_gradient: the gradient of forward must be finite, got NaN or infinity",
    "LeaksLowBits": "check_gradient: a release with a gradient must hold values that decode gives, got others",
    "RoundsItsState": "check_state_dict: a loaded state must encode as before, got other symbols",
    "OtherDecodeTable": "check_packing: decode_table must give what decode gives, got other values",
    "CountsTwice": "check_log_prob: probabilities must sum to one over the symbols, got sums between",
    "SaysNothing": "check_repr: repr must show epsilon, one of ",
    "CodebookAboutTheBatch": "a record's symbols must depend on it alone, got another law beside other records.",
    "CodebookFittedOnTheBatch": "check_decode: decode must depend on the symbols alone, got values that changed",
    "DirectionFromTheBatch": "a record's symbols must depend on it alone, got another law beside other records.",
    "OneTooMany": "got one of the 2 symbols that record 0 of the trial names in .* and place . of the row in .*, for ",
    "SharperThanDeclared": "encode must follow the channel that the layer declares, got one of the 2 symbols that",
    "FreshOneTooMany": "encode must follow the channel that the layer declares, got one of the 1 symbols that record",
    "ClaimsHalfOfItsCodebook": "the table must cost at most the epsilon claimed, 1, got 2 between inputs 0 and",
    "NormNotLimited": "one use must cost at most the epsilon claimed, 2, got at least 5.* by log-likelihood ratio",
    "FreshAndQuietInEval": "check_noise_in_eval: noise must be the same in train and eval mode, got another law.",
    "FreshWithNoiseOfOneCall": "check_fresh_noise: each call must draw anew, got the same symbols again.",
    # 256 pairs of calls, or 1,024 of neighbours: which is noticed first depends on what is drawn.
    "FreshAndShared": r"noise must be independent, got (records of one batch|neighbouring records) that share it\.",
    "BookFromTheNoise": "check_decode: decode must depend on the symbols alone, got values that changed",
    "DecodesWithAnotherBook": "check_packing: decode_table must give what decode gives, got other values",
    "FreshLeaksLowBits": "check_gradient: a release with a gradient must hold values that decode gives, got others",
    "WritesOutsideItsBook": r"check_symbols: symbols must be in \[0, 4\), got \[4, 4\]",
    "WeighsOnlyTheClosest": "check_log_prob: ln Pr must be that of the channel, got other probabilities",
    "HidesItsSeed": 'check_repr: repr must say "not secure" where noise comes from a seed',
}


def failing(layer: nn.Module) -> dict[str, str]:
    """Each check that notices something, with what it says."""
    found = {}
    for check in CHECKS:
        try:
            check(layer, getattr(layer, "example", EXAMPLE))
        except AssertionError as error:
            found[check.__name__] = str(error)
    assert all(text.startswith((f"{name}: ", "assert_ldp: ")) for name, text in found.items())
    return found


@pytest.mark.parametrize("name", BROKEN)
def test_exactly_the_intended_checks_notice(name: str) -> None:
    make, checks = BROKEN[name]
    found = failing(make())
    assert set(found) == set(checks)
    assert re.search(SAID[name], found[checks[0]])


def test_every_check_has_a_layer_that_it_catches() -> None:
    caught = {checks[0] for _, checks in BROKEN.values()} | {"check_device"}
    assert caught == {check.__name__ for check in CHECKS}
    assert len(BROKEN) >= 10
    assert len(WORDS) == 8  # those of broken_records are registered too


def test_symbols_on_another_device_are_noticed() -> None:
    with pytest.raises(AssertionError, match="check_device: encode must return a tensor on cpu, got device=meta"):
        check_device(OnAnotherDevice(), EXAMPLE)
