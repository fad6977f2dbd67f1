"""Counts are the closed form, and the papers' integers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TinyNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import adjcompress as ac

IMAGE = torch.zeros(1, 3, 32, 32)


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    size=st.integers(7, 20),
)
def test_a_convolution_costs_its_closed_form(
    groups: int, inputs: int, outputs: int, kernel: int, stride: int, size: int
) -> None:
    layer = nn.Conv2d(inputs * groups, outputs * groups, kernel, stride, kernel // 2, groups=groups)
    counts = ac.count(layer, torch.zeros(3, inputs * groups, size, size))
    side = (size - 1) // stride + 1
    assert counts.macs == side * side * outputs * groups * inputs * kernel * kernel
    assert counts.parameters == outputs * groups * (inputs * kernel * kernel + 1)


def test_counts_do_not_depend_on_the_batch_and_leave_the_network_alone() -> None:
    network = TinyNet().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert ac.count(network, torch.zeros(1, 3, 32, 32)) == ac.count(network, torch.zeros(5, 3, 32, 32))
    assert network.training
    counts = ac.count(network, torch.zeros(1, 3, 32, 32))
    assert json.loads(json.dumps(counts.to_json()))["per_layer"][0]["name"] == counts.per_layer[0].name
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_layers_add_up_to_the_network() -> None:
    counts = ac.count(ac.create_model("mobilenet_v2", 10), torch.zeros(1, 3, 64, 64))
    assert sum(layer.parameters for layer in counts.per_layer) == counts.parameters
    assert sum(layer.macs for layer in counts.per_layer) == counts.macs
    parts = ["classifier", *(f"features.{number}" for number in range(19))]  # features.1 is not features.10
    assert sum(counts.macs_of([part]) for part in parts) == counts.macs == counts.macs_of(parts) and counts.macs_of([]) == 0


def test_bytes_are_those_of_the_state_dict() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert ac.count(network, torch.zeros(1, 3, 8, 8)).bytes == 4 * (12 + 4 + 4 * 4) + 8


def test_resnet50_has_the_published_counts_and_mac_ratios() -> None:
    example = torch.zeros(1, 3, 224, 224)
    for name, parameters, macs in (("resnet50", 25_557_032, 4.089), ("xresnet50", 25_603_976, 4.676)):
        counts = ac.count(ac.create_model(name, 1000), example)
        assert (counts.parameters, round(counts.macs / 1e9, 3)) == (parameters, macs)


class OwnTensors(nn.Module):
    """A forward that makes a tensor on the CPU and reads a value, which the meta device cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y = self.conv(images)
        return y * torch.ones(4, 1, 1) if y.sum().item() > 0 else y


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    network = ac.create_model("cifar_resnet20", 10)
    with pytest.raises(
        ac.AdjCompressError, match=r"CifarResNet does not take an image batch of shape \(1, 1, 32, 32\), torch.float32: "
    ):
        ac.count(network, torch.zeros(1, 1, 32, 32))
    with pytest.raises(ac.AdjCompressError, match=r"VisionTransformer does not take an image batch.*Wrong image height"):
        ac.count(ac.create_model("vit_b_16", 10, image_size=224), IMAGE)

    class Unwritten(nn.Module):
        pass

    with pytest.raises(NotImplementedError):
        ac.count(Unwritten(), IMAGE)
    prune.random_unstructured(network.layer1[0].conv1, "weight", 0.5)
    for look in (
        lambda: ac.count(network, IMAGE),
        lambda: ac.plan_widths(network, IMAGE, 2),
        lambda: ac.export_onnx(network.eval(), tmp_path / "a.onnx", IMAGE),
    ):
        with pytest.raises(ac.AdjCompressError, match=r"layer1\.0\.conv1\.weight cannot be copied.*prune\.remove"):
            look()
    prune.remove(network.layer1[0].conv1, "weight")
    assert ac.count(network, IMAGE).parameters == ac.count(ac.create_model("cifar_resnet20", 10), IMAGE).parameters


def test_a_network_that_cannot_run_without_values_is_counted_all_the_same() -> None:
    assert ac.count(OwnTensors(), torch.zeros(1, 3, 5, 5)).macs == 3 * 4 * 25
