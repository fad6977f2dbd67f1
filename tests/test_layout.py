"""Widths outside ONNX Runtime's blocks are found by name, with the width that would be inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import adjcompress as ac
from adjcompress.deploy import align_auto, block_channels, unblocked, unblocked_by
from adjcompress.deploy.layout import optimised


def exported(network: nn.Module, path: Path, channels: int = 3, size: int = 16) -> Path:
    ac.export_onnx(network.eval(), path, torch.randn(7, channels, size, size))
    return path


def test_the_block_is_a_power_of_two_and_auto_aligns_to_it() -> None:
    assert block_channels() in (1, 4, 8, 16, 32)
    assert align_auto() == (block_channels() if block_channels() > 1 else 8)


@pytest.mark.skipif(block_channels() == 1, reason="ONNX Runtime has no blocked layout on this processor: nothing is outside it")
class TestWithBlocks:
    def test_15_channels_in_place_of_16_are_fewer_and_outside_the_blocks_and_aligned_ones_are_not(self, tmp_path: Path) -> None:
        full = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10)  # ResNet-50's widths in fewer layers
        counts = {}
        for align in (1, align_auto()):
            plan = ac.plan_widths(full, torch.zeros(1, 3, 32, 32), 64 / 15, slim=["*"], align=align)
            small = ac.slice_model(full, plan)
            found = unblocked(exported(small, tmp_path / f"{align}.onnx", size=32))
            counts[align] = (sum(parameter.numel() for parameter in small.parameters()), len(found))
            if align == 1:
                assert {layer.layer for layer in found} >= {"layer2.0.conv2", "layer2.1.conv3"}
                outside = {(30, 32)} | ({(15, 16)} if block_channels() < 16 else set())  # fewer than a block are read in order
                assert {(layer.channels_in, layer.wanted_in) for layer in found} == outside
        assert counts[1][0] < counts[align_auto()][0]
        assert counts[1][1] > 0 == counts[align_auto()][1]

    def test_the_width_that_would_be_inside_is(self, tmp_path: Path) -> None:
        for number, (channels, groups) in enumerate(((30, 1), (30, 30), (28, 2))):
            network = nn.Sequential(
                nn.Conv2d(3, channels, 1),
                nn.Conv2d(channels, channels, 3, groups=groups),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            found = {layer.layer: layer for layer in unblocked(exported(network, tmp_path / f"{number}.onnx"))}
            layer = found["1"]
            assert (layer.channels_in, layer.groups) == (channels, groups)
            assert layer.wanted_in is not None and layer.wanted_out is not None
            wider = nn.Sequential(
                nn.Conv2d(3, layer.wanted_in, 1),
                nn.Conv2d(layer.wanted_in, layer.wanted_out, 3, groups=layer.wanted_in if groups == channels else groups),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            assert "1" not in {layer.layer for layer in unblocked(exported(wider, tmp_path / f"{number}w.onnx"))}
            assert f"1, {channels} -> {channels} channels, is not in the blocked layout; {layer.wanted_in} -> " in str(layer)

    def test_a_plan_alone_says_what_its_export_will(self, tmp_path: Path) -> None:
        full = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.Conv2d(32, 32, 3, groups=32),
            nn.Conv2d(32, 64, 3),
            nn.Conv2d(64, 18, 1),
            nn.Conv2d(18, 8, 1),  # outside at full width already
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        example = torch.zeros(1, 3, 16, 16)
        plan = ac.plan_widths(full, example, 32 / 22, slim=["0", "2"])
        small = ac.slice_model(full, plan)
        outside = unblocked(exported(small, tmp_path / "small.onnx"))
        assert [layer.layer for layer in outside] == ["1", "2", "4"]
        assert unblocked_by(plan, small) == outside[:2]
        aligned = ac.plan_widths(full, example, 32 / 22, slim=["0", "2"], align=align_auto())
        assert unblocked_by(aligned, ac.slice_model(full, aligned)) == ()

    def test_an_export_says_which_layers_are_outside(self, tmp_path: Path) -> None:
        network = nn.Sequential(nn.Conv2d(3, 30, 1), nn.Conv2d(30, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        report = ac.export_onnx(network, tmp_path / "a.onnx", torch.randn(7, 3, 8, 8))
        assert [layer["layer"] for layer in report.to_json()["unblocked"]] == ["1"]


def test_a_graph_that_cannot_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nonsense")
    with pytest.raises(ac.AdjCompressError, match=r"a\.onnx: ONNX Runtime cannot run this graph"):
        optimised(tmp_path / "a.onnx")
