"""SplitModel: composed, frozen, priced, charged."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    BudgetExceeded,
    InvalidParameterError,
    LaplaceLDP,
    LocalPretrainedEncoder,
    NonFiniteError,
    PrivacyError,
    PrivacyWarning,
    RandomResponseLDP,
    RandomVectorMask,
    ShapeError,
    SplitModel,
    accounting,
)
from splitpriv.accounting import Ledger, epsilon_total


def rr(epsilon: float = 2.0) -> RandomResponseLDP:
    return RandomResponseLDP(epsilon=epsilon)


def make(cut: object = None, **options: object) -> SplitModel:
    torch.manual_seed(0)
    edge = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU())
    return SplitModel(edge, nn.Linear(8, 3), rr() if cut is None else cut, **options)  # type: ignore[arg-type]


def x(n: int = 5) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(n))


def test_forward_is_server_of_cut_of_edge() -> None:
    torch.manual_seed(0)
    edge, server = nn.Linear(6, 8), nn.Linear(8, 3)
    with pytest.warns(PrivacyWarning, match="released with epsilon infinite: no mechanism at the cut"):
        assert torch.equal(SplitModel(edge, server)(x()), server(edge(x())))
    mask = RandomVectorMask()
    with pytest.warns(PrivacyWarning):
        assert torch.equal(SplitModel(edge, server, cut=mask)(x()), server(mask(edge(x()))))


def test_it_is_an_ordinary_module() -> None:
    model = make()
    assert [name for name, _ in model.named_children()] == ["edge", "cut", "server"]
    twin = make()
    twin.load_state_dict(model.state_dict())
    assert model.to(torch.float64)(x().double()).dtype == torch.float64
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.spend() == model.spend()
    assert len(list(model.parameters())) == 4


def test_a_frozen_edge_stays_in_eval_mode_without_gradients() -> None:
    model = make().train()
    assert not model.edge.training
    assert not any(module.training for module in model.edge.modules())
    assert model.server.training
    assert not any(p.requires_grad for p in model.edge.parameters())
    model(x()).sum().backward()
    assert all(p.grad is None for p in model.edge.parameters())
    assert all(p.grad is not None for p in model.server.parameters())


def test_wrapping_leaves_the_mode_of_the_server_alone() -> None:
    whole = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)).eval()
    assert not SplitModel.from_model(whole, at="1", cut=rr()).server.training
    assert not whole[2].training


def test_joint_training_moves_the_edge() -> None:
    model = make(LaplaceLDP(epsilon=2.0, sensitivity=8.0), joint=True).train()
    assert model.edge.training
    model(x()).sum().backward()
    assert any((p.grad != 0).any() for p in model.edge.parameters())


def test_what_it_says() -> None:
    model = make(labels="public")
    assert "ε per record: unknown before the first use; edge: frozen, public data" in repr(model)
    model(x())
    assert "ε 2 per element × 8 = 16 per record; edge: frozen, public data; labels: public (ε covers" in repr(model)
    assert "a record pays for every row after its first gradient" in repr(make(joint=True))
    assert "ε ∞ per record" in repr(SplitModel(nn.Identity(), nn.Identity()))
    assert "labels: private, unprotected (ε ∞)" in repr(make(labels="private"))


def test_shape_is_known_at_once_with_an_example() -> None:
    whole = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model = SplitModel.from_model(whole, at="1", cut=rr(), example_input=x(2), labels="public")
    assert model.feature_shape == (8,)
    assert epsilon_total(model) == 16.0
    assert epsilon_total() == 0.0  # the example has not crossed
    with pytest.raises(PrivacyError, match="SplitModel: shape must be known to price a record"):
        make().spend()
    assert epsilon_total(make(), shape=(8,)) == 16.0


def test_every_call_is_charged_in_train_and_eval_alike() -> None:
    model = make()
    model.train()(x())
    assert epsilon_total() == 16.0
    with pytest.warns(PrivacyWarning, match=r"use model.release\(...\) once"):
        model.eval()(x())
    assert epsilon_total() == 32.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # warned once
        model(x())


def test_bare_layers_never_charge() -> None:
    rr()(x())
    assert epsilon_total() == 0.0


def test_ids_tell_records_apart() -> None:
    model = make()
    model(x(3), ids=["a", "b", "c"])
    model(x(2), ids=torch.tensor([2, 3]))
    assert epsilon_total() == 16.0
    model(x(2), ids=["c", "d"])
    assert epsilon_total() == 32.0
    with pytest.raises(InvalidParameterError, match="SplitModel: ids must be 3, one per record, got 1"):
        model(x(3), ids=["a"])
    with pytest.raises(InvalidParameterError, match="SplitModel: ids must be a list of 3, got one string"):
        model(x(3), ids="abc")  # type: ignore[arg-type]


def test_a_limit_refuses_before_anything_is_drawn() -> None:
    model = make(RandomResponseLDP(epsilon=2.0, generator=1))
    reference = RandomResponseLDP(epsilon=2.0, generator=1)
    with Ledger(limit=10.0), pytest.raises(BudgetExceeded, match="limit=10 with 0 spent and 16 asked"):
        model(x())
    assert epsilon_total() == 0.0
    features = model.edge(x())
    assert torch.equal(model.cut[0].encode(features), reference.encode(features))  # its stream is untouched


def test_simulation_charges_nothing() -> None:
    model = make()
    with accounting.simulation():
        for _ in range(3):
            model(x())
    assert epsilon_total() == 0.0


def test_several_layers_cost_what_the_chain_costs() -> None:
    model = make([RandomVectorMask(), rr(1.0), rr(1.0)])
    model(x())
    assert model.spend().per_record < 8.0
    assert epsilon_total() == epsilon_total(model) == accounting.price(list(model.cut), (8,)).per_record()
    assert isinstance(make(nn.Sequential(rr(), rr())).cut[1], RandomResponseLDP)


def test_a_private_edge_is_infinite_until_the_number_of_records_is_known() -> None:
    assert epsilon_total(make(edge_data="private"), shape=(8,)) == math.inf
    model = make(edge_data="private", edge_records=10)
    assert epsilon_total(model, shape=(8,)) == 160.0
    model(x(3), ids=["a", "b", "c"])
    assert epsilon_total() == 160.0
    model(x(3), ids=["d", "e", "f"])  # whoever the edge learned from pays for these rows too
    assert epsilon_total() == 320.0
    assert "the edge was fitted on 10 private records" in model.price().notes[0]


def test_an_encoder_fitted_on_private_records_costs_its_records() -> None:
    encoder = LocalPretrainedEncoder((8,), 4, nonce=b"sixteen bytes at least")
    records = torch.randn(20, 8), torch.arange(20) % 2
    encoder.fit(records, epochs=1, seed=0, progress=False)
    model = make([encoder, rr(1.0)])
    assert epsilon_total(model, shape=(8,)) == 20 * 4.0


def test_in_joint_mode_a_record_pays_for_all_rows_after_its_first_gradient() -> None:
    model = make(rr(1.0), joint=True).train()  # 8 per record and row
    model(x(4)).sum().backward()
    assert epsilon_total() == 8.0  # before any gradient: its own row
    model(x(4))
    assert epsilon_total() == 8.0 + 4 * 8.0
    with torch.no_grad():
        model.eval()(x(2))
    assert epsilon_total() == 8.0 + 4 * 8.0 + 2 * 8.0
    twin = make(rr(1.0), joint=True)
    twin.load_state_dict(model.state_dict())
    assert bool(twin.edge_learned)


def test_joint_mode_that_never_learned_costs_one_row() -> None:
    model = make(rr(1.0), joint=True)
    with torch.no_grad():
        model(x(4))
    model.eval()(x(4))  # no gradient comes back
    assert epsilon_total() == 16.0


class BatchNormed(nn.Sequential):
    def __init__(self, **options: bool) -> None:
        super().__init__(nn.Linear(6, 8), nn.BatchNorm1d(8, **options))


def test_batch_statistics_on_the_edge_are_refused() -> None:
    SplitModel(BatchNormed(), nn.Linear(8, 3), cut=rr()).train()(x())  # frozen: eval mode, running statistics
    joint = SplitModel(BatchNormed(), nn.Linear(8, 3), cut=rr(), joint=True)
    with pytest.raises(PrivacyError, match=r"edge must not normalise over the batch, got BatchNorm '1' using batch"):
        joint.train()(x())
    joint.edge.eval()
    joint(x())
    without = SplitModel(BatchNormed(track_running_stats=False), nn.Linear(8, 3), cut=rr())
    with pytest.raises(PrivacyError, match="ties records together"):
        without(x())
    with pytest.raises(PrivacyError, match="ties records together"):
        without.release(x(), progress=False)


def test_errors_name_the_layer() -> None:
    model = make([rr(), RandomResponseLDP(epsilon=1.0, threshold=torch.zeros(3))])
    with pytest.raises(ShapeError, match=r"SplitModel: cut\[1\] failed on features of shape \(5, 8\): RandomResponse"):
        model(x())
    with pytest.raises(NonFiniteError, match="SplitModel: features must be finite"):
        make()(x() / 0)


def test_an_edge_must_return_one_row_per_record() -> None:
    with pytest.raises(ShapeError, match="features must have shape"):
        SplitModel(nn.Flatten(0), nn.Identity(), cut=rr())(x())
    with pytest.raises(ShapeError, match="edge must return one row per record, got 10 rows for 5 records"):
        SplitModel(Folded(), nn.Identity(), cut=rr())(x())


class Folded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2 * len(x), -1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"joint": "yes"}, "joint must be True or False"),
        ({"edge_data": "secret"}, "edge_data must be 'public' or 'private', got edge_data='secret'"),
        (
            {"labels": "yes"},
            "labels must be 'public' or 'private' or None or a LabelLDP or EmbeddedLabels, got labels='yes'. Say what",
        ),
        ({"edge_records": 5}, "edge_records must be None with a public edge, got edge_records=5. Declare"),
        ({"edge_data": "private", "edge_records": 0}, "edge_records must be an integer >= 1"),
        ({"cut": nn.ReLU()}, r"cut must be a privacy layer .*got cut=ReLU\(\). It lacks encode, decode"),
        ({"cut": 5}, "cut must be a privacy layer .*got cut=5. It lacks"),
        ({"cut": RandomResponseLDP}, "cut must be a privacy layer .*Pass an instance"),
        ({"cut": [rr(), nn.Identity()]}, r"cut\[1\] must be a privacy layer"),
        ({"edge": lambda x: x}, "edge must be an nn.Module"),
        ({"server": None}, "server must be an nn.Module, got server=None"),
    ],
)
def test_bad_arguments(options: dict[str, object], text: str) -> None:
    arguments: dict[str, object] = {"edge": nn.Identity(), "server": nn.Identity(), **options}
    with pytest.raises(InvalidParameterError, match=text):
        SplitModel(**arguments)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_under_torch_compile() -> None:
    torch._dynamo.reset()
    model = make()
    compiled = torch.compile(model, backend="eager")
    assert compiled(x(), ids=list(range(5))).shape == (5, 3)
    assert epsilon_total() == 16.0


# Faults that an independent review found in an earlier draft; each stays caught.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_cascade_runs_as_the_channel_that_was_priced_in_every_dtype(dtype: torch.dtype) -> None:
    # In float32 0.7 lies outside the second interval, so all becomes 0 and the price is 0. In float64 it
    # would lie inside; then something would cross for nothing.
    first = LaplaceLDP(epsilon=2.0, sensitivity=1.4, levels=3, outside="clamp")
    second = LaplaceLDP(epsilon=2.0, sensitivity=1.4, levels=3)
    model = SplitModel(nn.Identity(), nn.Identity(), [first, second])
    assert epsilon_total(model, shape=(2000,)) == 0.0
    plus, minus = (torch.full((1, 2000), v, dtype=dtype) for v in (0.6, -0.6))
    # Sums of 2,000 draws of noise with standard deviation below 1.4: 7 of theirs apart at most, if nothing
    # crossed (failure probability below 1e-11); 2,000 * 0.5 apart, if it did.
    with accounting.simulation():
        apart = float(model(plus).double().sum() - model(minus).double().sum())
    assert abs(apart) < 7 * 1.4 * math.sqrt(2 * 2000)


def test_a_layer_that_changes_the_shape_unannounced_is_refused() -> None:
    class Grow(RandomVectorMask):
        def encode(self, features: Tensor) -> Tensor:
            return features.repeat(1, 50).float()

    class Fold(RandomVectorMask):
        def encode(self, features: Tensor) -> Tensor:
            return features.reshape(2 * len(features), -1).float()

    with pytest.raises(
        ShapeError, match=r"cut\[0\] must have the shape that was priced, got decode of shape \(5, 400\)"
    ):
        make([Grow(), rr()])(x())
    with pytest.raises(ShapeError, match=r"got encode of shape \(10, 4\) for \(5, 4\)"):
        make([Fold(), rr()])(x())


def test_forward_of_a_layer_is_never_trusted() -> None:
    class Quiet(RandomResponseLDP):
        def forward(self, features: Tensor) -> Tensor:
            return features

    released = SplitModel(nn.Identity(), nn.Identity(), Quiet(epsilon=1.0))(x())
    assert torch.isin(released, torch.tensor([0.0, 1.0])).all()


def test_what_is_charged_is_what_this_call_releases() -> None:
    model = SplitModel(nn.Identity(), nn.Identity(), rr(1.0))
    features = torch.randn(3, 50)
    model._feature_shape = (2,)  # as another thread may have left it
    model(features)
    assert epsilon_total() == 50.0


def test_learning_under_simulation_is_not_forgotten() -> None:
    model = make(rr(1.0), joint=True).train()
    with accounting.simulation():
        model(x(4)).sum().backward()
    model(x(4))
    assert epsilon_total() == 4 * 8.0


def test_a_jointly_trained_edge_is_not_public_when_wrapped_again() -> None:
    model = make(rr(1.0), joint=True).train()
    model(x(4)).sum().backward()
    again = SplitModel(model.edge, model.server, rr(1.0))
    assert epsilon_total(again, shape=(8,)) == math.inf
    assert epsilon_total(SplitModel(copy.deepcopy(model.edge), nn.Identity(), rr(1.0)), shape=(8,)) == math.inf
    known = SplitModel(model.edge, model.server, rr(1.0), edge_data="private", edge_records=4)
    assert epsilon_total(known, shape=(8,)) == 32.0
    resumed = SplitModel(model.edge, model.server, rr(1.0), joint=True)
    assert bool(resumed.edge_learned)
    with pytest.raises(AttributeError):
        model.joint = False  # type: ignore[misc]


def test_the_cut_is_frozen_and_watched_like_the_edge() -> None:
    class Normed(RandomVectorMask):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    assert not make(rr()).train().cut.training
    with pytest.raises(PrivacyError, match=r"cut must not normalise over the batch, got BatchNorm '0\.norm'"):
        make([Normed(), rr()])(x())
    edge = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True))
    running = SplitModel(edge, nn.Identity(), rr(), joint=True).train()
    with pytest.raises(PrivacyError, match="edge must not normalise over the batch"):
        running(x())


def test_shared_weights_are_refused() -> None:
    both = nn.Linear(6, 6)
    with pytest.raises(InvalidParameterError, match=r"server must be free of the edge's tensors.*weight, bias"):
        SplitModel(both, both, rr())


def test_data_sets_are_named_in_forward_too() -> None:
    model = make()
    model(x(2), ids=[0, 1], dataset="train")
    model(x(2), ids=[0, 1], dataset="test")
    assert epsilon_total() == 16.0
    model(x(2), ids=[0, 1])  # of no named set: may be the same records
    assert epsilon_total() == 32.0


def test_joint_training_needs_a_layer_that_keeps_the_shape() -> None:
    class Pick(RandomResponseLDP):
        def output_shape(self, shape: object) -> tuple[int, ...]:
            return (3,)

        def decode(self, symbols: Tensor) -> Tensor:
            return super().decode(symbols)[:, :3]

    model = SplitModel(nn.Linear(6, 8), nn.Linear(3, 2), Pick(epsilon=1.0), joint=True)
    with pytest.raises(PrivacyError, match=r"cut\[0\] must keep the shape to train jointly, got Pick"):
        model(x())


def test_half_precision_holds_what_is_released() -> None:
    layer = LaplaceLDP(epsilon=0.01, sensitivity=400.0)
    for released in (layer(x(200).half()), SplitModel(nn.Identity(), nn.Identity(), layer)(x(200).half())):
        assert released.dtype == torch.float16
        assert torch.isfinite(released).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_tracing_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"features must not be traced by torch\.jit or exported"):
        torch.jit.trace(rr(), torch.randn(2, 3))


def test_a_bad_batch_does_not_spoil_the_repr() -> None:
    model = SplitModel(nn.Identity(), nn.Identity(), [LocalPretrainedEncoder((4,), 4, nonce=b"0" * 16), rr()])
    with pytest.raises(ShapeError):
        model(torch.randn(2, 5))
    assert "unknown before the first use" in repr(model)


# What a first user stumbled over.


def test_ids_that_come_again_are_a_loop() -> None:
    model = make()
    for ids in (["a", "b"], ["c", "d"]):
        model(x(2), ids=ids)  # new records: serving, no loop
    with pytest.warns(
        PrivacyWarning, match=r"every forward call is a release.*model\.release\(\.\.\.\) once"
    ) as caught:
        model(x(2), ids=["e", "a"])
    assert caught[0].filename == __file__  # the user's line, not ours
    model(x(2), ids=["a", "b"])  # once is enough


@pytest.mark.parametrize(
    "edge",
    [
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=False),
        nn.Sequential(nn.Flatten(2), nn.LayerNorm(4), nn.BatchNorm1d(5)),
    ],
    ids=["sequence", "norm"],
)
def test_an_edge_that_mixes_records_is_refused_where_it_shows(edge: nn.Module) -> None:
    records = torch.randn(6, 5, 4)
    model = SplitModel(edge, nn.Identity(), rr())
    if isinstance(edge, nn.TransformerEncoderLayer):
        with pytest.raises(PrivacyError, match=r"edge must treat each record by itself.*batch_first=True"):
            model.release(records, progress=False)
        with pytest.raises(PrivacyError, match="rows depend on one another"):
            SplitModel.from_model(nn.Sequential(edge, nn.Linear(4, 2)), at="0", cut=rr(), example_input=records)
        assert epsilon_total() == 0.0
    else:
        model.release(records, progress=False)  # BatchNorm in eval mode is fine


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_an_edge_of_another_dtype_is_not_taken_for_one_that_mixes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    edge = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 32)).to(dtype)
    release = SplitModel(edge, nn.Identity(), rr()).release(torch.randn(50, 64).to(dtype), progress=False)
    assert len(release) == 50


def test_what_the_edge_has_learned_goes_with_the_state_dict() -> None:
    joint = make(rr(1.0), joint=True).train()
    joint(x(4)).sum().backward()
    frozen = make(rr(1.0))
    frozen.load_state_dict(joint.state_dict())
    assert epsilon_total(frozen, shape=(8,)) == math.inf
    again = make(rr(1.0), joint=True)
    again.load_state_dict(joint.state_dict())
    again(x(3))
    assert epsilon_total() >= 3 * 8.0
    rewrapped = SplitModel(again.edge, nn.Identity(), rr(1.0))
    assert epsilon_total(rewrapped, shape=(8,)) == math.inf


def test_another_layer_can_be_put_at_the_cut() -> None:
    model = make()
    model.cut = rr(4.0)
    assert model.spend((8,)).per_record == 32.0
    model(x())
    with pytest.raises(InvalidParameterError, match="cut must be a privacy layer"):
        model.cut = nn.ReLU()


def test_an_empty_batch_costs_nothing() -> None:
    make()(x()[:0])
    assert epsilon_total() == 0.0


def test_a_frozen_edge_that_was_switched_by_hand_is_switched_back() -> None:
    model = make()
    model.edge.train()
    model(x())
    assert not model.edge.training


def test_edges_with_other_outputs_or_inputs_are_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ShapeError, match="SplitModel: edge must return one tensor, got tuple"):
        SplitModel(Pair(), nn.Identity(), rr())(x())
    bilinear = Two()
    with pytest.raises(InvalidParameterError, match="example_input must be one tensor, got tuple"):
        SplitModel.from_model(bilinear, at="both", cut=rr(), example_input=(x(), x()))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.head = nn.Bilinear(6, 6, 8), nn.Linear(8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(self.both(a, b))
