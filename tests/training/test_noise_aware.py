"""Noise-aware training: a server that is right for clean features, from a release that is all noise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import (
    CodebookLDP,
    EmbeddedLabels,
    InvalidParameterError,
    LabelLDP,
    RandomResponseLDP,
    Release,
    SplitModel,
    accounting,
    fit,
)

DIM, CLASSES = 12, 4


def records(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors in classes whose spread is wide in directions that do not tell them apart."""
    centres = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    spread = torch.linspace(0.2, 3.0, DIM)
    return F.normalize(centres[y] + spread * torch.randn(count, DIM, generator=generator), dim=1), y


TRAIN, TEST, PUBLIC = records(12000, 1), records(4000, 2), records(4000, 3)


def wrapped(labels: object, epsilon: float) -> SplitModel:
    dim = DIM * CLASSES if isinstance(labels, EmbeddedLabels) else DIM
    cut = CodebookLDP.random(dim, size=64, epsilon=epsilon, generator=1, nonce=bytes(16))
    return SplitModel(nn.Identity(), nn.Linear(DIM, CLASSES), cut, labels=labels)  # type: ignore[arg-type]


def released(model: SplitModel) -> Release:
    with accounting.simulation():
        return model.release(TRAIN, progress=False)


def accuracy(server: nn.Module) -> float:
    with torch.no_grad():
        return float((server(TEST[0]).argmax(1) == TEST[1]).float().mean())


def deep() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(DIM, 64), nn.ReLU(), nn.Linear(64, CLASSES))


@pytest.fixture(scope="module")
def best() -> float:
    """Trained without noise: what there is to reach (about 0.76 here)."""
    server = deep()
    optimizer = torch.optim.Adam(server.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(server(TRAIN[0]), TRAIN[1]).backward()
        optimizer.step()
    return accuracy(server)


@pytest.mark.parametrize(
    ("labels", "epsilon"),
    [("public", 1.0), (LabelLDP(CLASSES, epsilon=2.0, generator=2), 2.0), (EmbeddedLabels(CLASSES), 2.0)],
    ids=["public", "ldp", "embedded"],
)
@pytest.mark.parametrize("kind", ["linear", "deep"])
def test_it_nearly_reaches_training_without_noise(best: float, labels: object, epsilon: float, kind: str) -> None:
    """Seeds are fixed: what is asserted is this run."""
    model = wrapped(labels, epsilon)
    release = released(model)
    server = model.server if kind == "linear" else deep()
    public = (model.clean(PUBLIC[0]), PUBLIC[1])
    history = fit(server, release, noise_aware=True, public=public, epochs=6, lr=3e-3, seed=0, progress=False)
    assert accuracy(server) > 0.25 + 0.85 * (best - 0.25)
    assert len(history.loss) == (0 if kind == "linear" else 6)


def test_training_on_the_noisy_vectors_does_not(best: float) -> None:
    server = deep()
    fit(server, released(wrapped("public", 1.0)), epochs=6, lr=3e-3, seed=0, progress=False)
    assert accuracy(server) < 0.25 + 0.7 * (best - 0.25)


def test_it_works_without_public_features_and_with_unlabelled_ones() -> None:
    model = wrapped("public", 4.0)
    release = released(model)
    for public in (None, PUBLIC[0]):
        fit(model.server, release, noise_aware=True, public=public, seed=0, progress=False)
        assert accuracy(model.server) > 0.5


def test_public_covariance_is_worth_having() -> None:
    model = wrapped("public", 2.0)
    release, found = released(model), []
    for public in (None, PUBLIC):
        fit(model.server, release, noise_aware=True, public=public, seed=0, progress=False)
        found.append(accuracy(model.server))
    assert found[1] > found[0]


@pytest.mark.parametrize("kind", ["linear", "deep"])
def test_a_server_for_noisy_inference_reads_noisy_features_better(kind: str) -> None:
    """Seeds are fixed: what is asserted is this run."""
    model = wrapped("public", 4.0)
    release, public = released(model), (model.clean(PUBLIC[0]), PUBLIC[1])
    layer = CodebookLDP.random(DIM, size=256, epsilon=6.0, generator=5, nonce=bytes(16))
    noisy, found = layer.decode(layer.encode(TEST[0])), []
    for through in (None, layer):
        server = nn.Linear(DIM, CLASSES) if kind == "linear" else deep()
        fit(server, release, noise_aware=True, public=public, through=through, epochs=4, seed=0, progress=False)
        with torch.no_grad():
            found.append(float((server(noisy).argmax(1) == TEST[1]).float().mean()))
    assert found[1] > found[0] + 0.02


def test_any_layer_will_do_that_releases_vectors_as_such() -> None:
    model = wrapped("public", 4.0)
    layer = RandomResponseLDP(epsilon=2.0, debias=True, generator=5)
    history = fit(model.server, released(model), noise_aware=True, through=layer, epochs=2, seed=0, progress=False)
    assert len(history.loss) == 2  # trained, not solved: nothing is known of this noise


def test_features_that_are_no_vectors_are_trained_on_with_a_corrected_loss() -> None:
    cut = RandomResponseLDP(epsilon=4.0, generator=1)
    flip = torch.where(torch.rand(len(TRAIN[1]), generator=torch.Generator().manual_seed(0)) < 0.5, 0, TRAIN[1])
    labels = LabelLDP(CLASSES, epsilon=1.0, generator=2)
    model = SplitModel(nn.Unflatten(1, (3, 4)), nn.Identity(), cut, labels=labels)
    with accounting.simulation():
        release = model.release((TRAIN[0], flip), progress=False)
    share = []
    for aware in (False, True):
        torch.manual_seed(0)
        server = nn.Sequential(nn.Flatten(), nn.Linear(DIM, CLASSES))
        fit(server, release, noise_aware=aware, epochs=8, lr=3e-3, seed=0, progress=False)
        with torch.no_grad():
            share.append(float(server(release.batch(slice(None))[0]).softmax(1)[:, 0].mean()))
    truth = float((flip == 0).float().mean())  # about 0.62; plain training learns the released share, about 0.45
    assert abs(share[1] - truth) < 0.03 < abs(share[0] - truth)


@pytest.mark.parametrize("dim", [16, 64, 320])
@pytest.mark.parametrize("size", [64, 256, 4096])
def test_what_is_taken_for_the_second_moment_is_near_it(dim: int, size: int) -> None:
    """fit takes b = 1 where a release does not say it: within 6 % up to ε 4, 15 % up to 16."""
    for epsilon, off in ((0.5, 0.06), (1.0, 0.06), (2.0, 0.06), (4.0, 0.06), (8.0, 0.15), (16.0, 0.15)):
        layer = CodebookLDP.random(dim, size=size, epsilon=epsilon, generator=1)
        a, b = layer.second_moment
        assert dim * a + b == pytest.approx(1 / layer.cosine**2)
        assert abs(b - 1) < off, (epsilon, b)


def test_wrong_arguments_are_named() -> None:
    model = wrapped("public", 1.0)
    release = released(model)
    embedded = released(wrapped(EmbeddedLabels(CLASSES), 1.0))
    for options, text in (
        ({"noise_aware": 1.5}, "noise_aware must be True or False"),
        ({"public": PUBLIC}, "public must be None unless noise_aware=True"),
        ({"prior": torch.ones(4)}, "prior must be None unless noise_aware=True"),
        ({"through": nn.Identity()}, "through must be None unless noise_aware=True"),
        (
            {"noise_aware": True, "through": nn.Identity()},
            "through must be a privacy layer that releases",
        ),
        ({"noise_aware": True, "public": PUBLIC[0][:, :3]}, r"public must be finite features of shape \(n, 12\)"),
        ({"noise_aware": True, "public": (PUBLIC[0], PUBLIC[1][:5])}, r"public must be labels of shape \(4000,\)"),
    ):
        with pytest.raises(InvalidParameterError, match=text):
            fit(model.server, release, progress=False, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"server must be one with outputs \(batch, classes\)"):
        fit(nn.Sequential(nn.Linear(DIM, 3), nn.Flatten(0)), release, noise_aware=True, progress=False)
    with pytest.raises(InvalidParameterError, match="release must be a non-empty release with labels"):
        fit(model.server, embedded, progress=False)
