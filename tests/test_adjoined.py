"""What the papers define, proven: the loss and its gradients, the masks, the sharing of weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import TinyNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import adjcompress as ac
from adjcompress.adjoined import SCHEDULES, divergence, r_beta_mask
from adjcompress.methods import METHODS


def adjoined(alphas: tuple[float, ...] = (2,), mask: ac.RandomMask | None = None) -> ac.AdjoinedNetwork:
    torch.manual_seed(0)
    full = TinyNet()
    example = torch.zeros(2, 3, 32, 32)
    return ac.adjoin(full, {f"alpha{alpha:g}": ac.plan_widths(full, example, alpha) for alpha in alphas}, mask)


def test_the_loss_is_the_papers_definition() -> None:
    torch.manual_seed(0)
    full, small, labels = torch.randn(6, 10), torch.randn(6, 10), torch.arange(6)
    p, q = full.softmax(1), small.softmax(1)
    expected = F.cross_entropy(full, labels) + 0.7 * (p * (p / q).log()).sum(1).mean()
    loss = ac.adjoint_loss(full, {"small": small}, labels, 0.7)
    assert torch.allclose(loss.total, expected, atol=1e-6)
    assert torch.allclose(loss.total, loss.cross_entropy + 0.7 * loss.divergence)


def test_several_small_networks_count_with_the_mean_of_their_divergences() -> None:
    full, first, second, labels = torch.randn(6, 10), torch.randn(6, 10), torch.randn(6, 10), torch.arange(6)
    loss = ac.adjoint_loss(full, {"a": first, "b": second}, labels, 1.0)
    assert torch.allclose(loss.divergence, (divergence(full, first) + divergence(full, second)) / 2)


def test_equal_logits_have_divergence_zero_also_where_probabilities_underflow() -> None:
    logits = torch.tensor([[0.0, 300.0, -300.0], [1.0, 2.0, 3.0]])
    assert divergence(logits, logits).item() == 0
    assert torch.isfinite(divergence(logits, -logits))


@given(st.lists(st.floats(-20, 20), min_size=5, max_size=5), st.lists(st.floats(-20, 20), min_size=5, max_size=5))
def test_the_divergence_is_never_negative(full: list[float], small: list[float]) -> None:
    assert divergence(torch.tensor([full]), torch.tensor([small])).item() >= -1e-5


def test_gradient_flows_through_the_full_network_unless_detached() -> None:
    labels = torch.zeros(3, dtype=torch.long)
    for detach in (False, True):
        full, small = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
        loss = ac.adjoint_loss(full, {"small": small}, labels, 1.0, detach)
        (from_divergence,) = torch.autograd.grad(loss.divergence, full, retain_graph=True, allow_unused=True)
        assert (from_divergence is None or not from_divergence.any()) == detach
        assert torch.autograd.grad(loss.divergence, small)[0].any()


def test_theorem_4_1_the_hessian_of_the_divergence_at_equal_probabilities() -> None:
    """At p = q the second derivative of KL is sum p (d log p - d log q)^2 in a shared parameter, sum p (d log p)^2 in one
    of the full network alone."""
    torch.manual_seed(0)
    basis, shared_full, shared_small, alone = (torch.randn(5, dtype=torch.double) for _ in range(4))

    def log_p(x: Tensor, y: Tensor) -> Tensor:
        return (basis + x * shared_full + y * alone).log_softmax(0)

    def log_q(x: Tensor) -> Tensor:
        return (basis + x * shared_small).log_softmax(0)

    def kl(x: Tensor, y: Tensor) -> Tensor:
        return divergence(log_p(x, y)[None], log_q(x)[None])

    zero = torch.zeros((), dtype=torch.double)
    hessian = torch.autograd.functional.hessian(kl, (zero, zero))
    p = log_p(zero, zero).exp()
    dx_p, dy_p = torch.autograd.functional.jacobian(log_p, (zero, zero))
    dx_q = torch.autograd.functional.jacobian(log_q, zero)
    assert torch.allclose(hessian[0][0], (p * (dx_p - dx_q) ** 2).sum())
    assert torch.allclose(hessian[1][1], (p * dy_p**2).sum())


def test_the_schedules_are_those_of_table_13() -> None:
    ends = {name: (schedule(0.0), schedule(0.25), schedule(1.0)) for name, schedule in SCHEDULES.items()}
    assert ends["quadratic"] == (0, 0.25, 1)
    assert SCHEDULES["quadratic"](0.5) == 1 == SCHEDULES["quadratic"](0.75)
    assert ends["linear"] == (0, 0.25, 1)
    assert ends["cosine"] == (0, 1 - math.cos(0.25), pytest.approx(0.46, abs=0.005))
    assert ends["exponential"] == (0, math.exp(0.25) - 1, pytest.approx(1.72, abs=0.005))
    assert ends["constant"] == (1, 1, 1)


@settings(deadline=None)
@given(
    beta=st.floats(0, 0.95),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3]), st.sampled_from([1, 3])),
)
def test_r_beta_zeroes_an_exact_part_of_the_whole_tensor(beta: float, shape: tuple[int, ...]) -> None:
    mask = r_beta_mask(shape, beta, seed=3)
    assert mask.shape == shape
    assert int((mask == 0).sum()) == round(beta * mask.numel())
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_r_beta_is_drawn_again_from_its_seed_and_differs_between_layers() -> None:
    assert torch.equal(r_beta_mask((8, 8, 3, 3), 0.5, 1, "a"), r_beta_mask((8, 8, 3, 3), 0.5, 1, "a"))
    assert not torch.equal(r_beta_mask((8, 8, 3, 3), 0.5, 1, "a"), r_beta_mask((8, 8, 3, 3), 0.5, 1, "b"))
    assert not torch.equal(r_beta_mask((8, 8, 3, 3), 0.5, 1, "a"), r_beta_mask((8, 8, 3, 3), 0.5, 2, "a"))
    # no k x k pattern shared by all kernels
    assert len({kernel.numpy().tobytes() for kernel in r_beta_mask((8, 8, 3, 3), 0.5, 1).view(64, 9)}) > 10
    with pytest.raises(ac.AdjCompressError, match=r"--beta 1 must be at least 0 and below 1"):
        r_beta_mask((2, 2), 1.0, 0)
    with pytest.raises(ac.AdjCompressError, match=r"A mask's beta, -0\.5, must be at least 0"):
        ac.RandomMask(-0.5)


@pytest.mark.parametrize("name", ["", "a.b", "full", "keys", "train"])
def test_names_that_would_be_taken_for_something_else_are_refused(images: Tensor, name: str) -> None:
    full = TinyNet()
    with pytest.raises(ac.AdjCompressError, match=f"'{name}' cannot name a small network"):
        ac.adjoin(full, {name: ac.plan_widths(full, images, 2)})


def test_masked_weights_are_zero_in_the_extracted_network_and_stay_so_after_reloading(images: Tensor) -> None:
    network = adjoined(mask=ac.RandomMask(0.5, seed=7))
    weight = network.extract("alpha2").first[0].weight
    assert int((weight == 0).sum()) == weight.numel() // 2
    assert network.extract("alpha2").head.weight.all() and network.extract("alpha2").stem[0].weight.all()  # not slim
    again = adjoined(mask=ac.RandomMask(0.5, seed=7))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.extract("alpha2").first[0].weight, weight)
    assert torch.equal(network.eval()(images).smalls["alpha2"], again.eval()(images).smalls["alpha2"])
    assert not any("mask" in name for name in network.state_dict())


def test_weights_are_shared_and_normalisation_is_not() -> None:
    network = adjoined()
    names = {name for name, _ in network.named_parameters()}
    assert names == {f"full.{name}" for name, _ in network.full.named_parameters()} | {
        f"smalls.alpha2.{norm}.{tensor}" for norm in ("stem.1", "first.1", "second.1") for tensor in ("weight", "bias")
    }


def test_the_small_network_trains_the_full_weights_it_reads_and_no_others(images: Tensor) -> None:
    network = adjoined()
    network(images).smalls["alpha2"].square().sum().backward()
    gradient = network.full.second[0].weight.grad
    assert gradient[:8, :8].any()
    assert not gradient[8:].any() and not gradient[:, 8:].any()
    assert network.full.second[1].weight.grad is None
    assert network.full.head.weight.grad[:, :8].any() and not network.full.head.weight.grad[:, 8:].any()
    assert network.full.head.bias.grad.any()


def test_each_network_has_statistics_of_its_own(images: Tensor) -> None:
    network = adjoined().train()
    network(images)
    assert not torch.equal(network.full.stem[1].running_mean, torch.zeros(8))
    # the stem is shared and whole, so both saw the same; the slim layers did not
    assert torch.equal(network.smalls["alpha2"].stem[1].running_mean, network.full.stem[1].running_mean)
    small, full = network.smalls["alpha2"].second[1].running_mean, network.full.second[1].running_mean
    assert small.shape == (8,) and not torch.allclose(small, full[:8])


def test_the_last_classifier_is_shared_with_its_bias(images: Tensor) -> None:
    network = adjoined()
    small = network.extract("alpha2")
    assert torch.equal(small.head.weight, network.full.head.weight[:, :8])
    assert torch.equal(small.head.bias, network.full.head.bias)


def test_several_small_networks_live_over_the_same_weights(images: Tensor) -> None:
    network = adjoined((2, 4, 8)).eval()
    full, smalls = network(images)
    assert list(smalls) == ["alpha2", "alpha4", "alpha8"]
    for name, logits in smalls.items():
        assert torch.equal(network.extract(name)(images), logits)
    assert torch.equal(network.extract("full")(images), full)


class InPlace(TinyNet):
    """Its first activation overwrites what the first convolution computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(inplace=True))


@pytest.mark.parametrize("kind", [TinyNet, InPlace])
def test_computing_the_first_convolution_once_changes_no_gradient(images: Tensor, kind: type[TinyNet]) -> None:
    torch.manual_seed(0)
    full = kind()
    network = ac.adjoin(full, {"small": ac.plan_widths(full, images, 2)}).train()
    labels = torch.arange(4)
    outputs = network(images)
    ac.adjoint_loss(outputs.full, outputs.smalls, labels, 1.0).total.backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    # the same by plain slicing, each network on its own
    small = torch.func.functional_call(network.smalls["small"], network.views("small"), (images,))
    ac.adjoint_loss(full(images), {"small": small}, labels, 1.0).total.backward()
    assert torch.equal(small, outputs.smalls["small"])
    for name, parameter in network.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-6), name


def test_a_compiled_step_has_the_same_gradients(images: Tensor) -> None:
    """Through dynamo, with the backend that compiles nothing: what is proven is that the network can be traced."""
    gradients = []
    for compiled in (False, True):
        network = adjoined((2, 4)).train()
        run = torch.compile(network, backend="eager", fullgraph=True) if compiled else network
        outputs = run(images)
        ac.adjoint_loss(outputs.full, outputs.smalls, torch.arange(4), 1.0).total.backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-6), name


def test_a_fork_adds_gradients_where_they_belong() -> None:
    from adjcompress.adjoined.network import _Fork

    weight = torch.randn(6, 4, 3, 3, dtype=torch.double, requires_grad=True)
    cuts = [{0: ((0, 2), (4, 5)), 1: ((1, 3),)}, {0: ((0, 3),)}]
    assert torch.autograd.gradcheck(lambda tensor: _Fork.apply(tensor, cuts, False), weight)
    assert torch.autograd.gradcheck(lambda tensor: _Fork.apply(tensor, cuts, False)[1:], weight)


def test_extracting_copies(images: Tensor) -> None:
    network = adjoined()
    small = network.extract("alpha2")
    before = small.first[0].weight.clone()
    with torch.no_grad():
        network.full.first[0].weight.add_(1)
    assert torch.equal(small.first[0].weight, before)


def test_a_small_network_without_its_views_fails_instead_of_computing_with_stale_weights(images: Tensor) -> None:
    with pytest.raises(RuntimeError):
        adjoined().smalls["alpha2"](images)


def test_adjoined_networks_that_cannot_be_are_refused() -> None:
    network = TinyNet()
    plan = ac.plan_widths(network, torch.zeros(1, 3, 32, 32), 2)
    with pytest.raises(ac.AdjCompressError, match="at least one small network"):
        ac.adjoin(network, {})
    with pytest.raises(ac.AdjCompressError, match="names have no dot"):
        ac.adjoin(network, {"alpha1.5": plan})
    with pytest.raises(ac.AdjCompressError, match=r"Small network 'alpha3' is unknown\. Choices: alpha2, full"):
        adjoined().extract("alpha3")


def test_method_options_reach_the_network() -> None:
    example = torch.zeros(2, 3, 32, 32)
    options = ac.MethodOptions(alphas=(2, 1.5), beta=0.25, seed=5, schedule="linear", detach=True)
    method = ac.AdjoinedMethod.build(TinyNet(), example, options)
    assert list(method.deployables()) == ["full", "alpha2", "alpha1_5"]
    assert method.network.mask == ac.RandomMask(0.25, 5)
    again = ac.AdjoinedMethod.restore(TinyNet(), method.settings())
    assert again.settings() == method.settings()
    assert again.network.plans == method.network.plans


def test_the_divergence_weight_follows_the_schedule(images: Tensor) -> None:
    method = ac.AdjoinedMethod(adjoined().eval(), "quadratic")
    labels = torch.arange(4)
    for progress, weight in ((0.0, 0.0), (0.25, 0.25), (0.9, 1.0)):
        terms = method.loss(images, labels, progress)
        assert torch.allclose(terms.total, terms.parts["cross_entropy"] + weight * terms.parts["divergence"])


def test_the_standard_method_trains_the_full_or_the_small_network_alone() -> None:
    example = torch.zeros(2, 3, 32, 32)
    full = ac.StandardMethod.build(TinyNet(), example, ac.MethodOptions())
    assert list(full.deployables()) == ["full"]
    small = ac.StandardMethod.build(TinyNet(), example, ac.MethodOptions(alphas=(4,)))
    assert list(small.deployables()) == ["alpha4"] and small.network.second[0].out_channels == 4
    again = ac.StandardMethod.restore(TinyNet(), small.settings())
    assert again.network.second[0].out_channels == 4
    with pytest.raises(ac.AdjCompressError, match="trains one network; 2 alphas were given"):
        ac.StandardMethod.build(TinyNet(), example, ac.MethodOptions(alphas=(2, 4)))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("substitute", "budgeted")])
def test_only_convolutions_and_linear_layers_decay(name: str) -> None:
    example = torch.zeros(2, 3, 32, 32)
    widths = {"plan": ac.plan_widths(TinyNet(), example, 2)} if METHODS[name].prepared_by else {"alphas": (2,)}
    method = METHODS[name].build(TinyNet(), example, ac.MethodOptions(**widths))
    decay, steady = method.parameter_groups(0.1)
    assert (decay["weight_decay"], steady["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decay["params"])
    assert all(parameter.ndim == 1 for parameter in steady["params"])
    assert len(decay["params"]) + len(steady["params"]) == len(list(method.network.parameters()))
