"""A name gives the network it says, and weights fit or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TinyNet
from safetensors.torch import save_file
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.methods import DropoutMethod, MethodOptions
from adjcompress.models import check_takes, load_weights_, model_names
from adjcompress.models.cifar_resnet import PaddedShortcut


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cifar_resnet20", 269_722),
        ("cifar_resnet56", 853_018),
        ("cifar_resnet110", 1_727_962),
        # torchvision's resnet18 (11,181,642) without its 7x7 stem (9,536), with the deep one (56,480)
        ("xresnet18", 11_181_642 - 9_536 + 56_480),
        # xresnet50 at 10 classes, and 3, 4, 6 and 3 more bottlenecks of 17 w^2 + 12 w parameters
        ("xresnet50x2", 23_575_466 + sum(n * (17 * w**2 + 12 * w) for n, w in ((3, 64), (4, 128), (6, 256), (3, 512)))),
    ],
)
def test_our_networks_have_known_parameter_counts(name: str, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in ac.create_model(name, 10).parameters()) == parameters


def test_blocks_of_an_xresnet_start_as_their_shortcut() -> None:
    network = ac.create_model("xresnet18", 10)
    assert all(not block.convs[-1][1].weight.any() for block in network.layer2)


def test_a_padded_shortcut_has_the_input_in_the_middle() -> None:
    images = torch.randn(2, 16, 8, 8)
    output = PaddedShortcut(16, 32)(images)
    assert torch.equal(output[:, 8:24], images[:, :, ::2, ::2])
    assert not output[:, :8].any() and not output[:, 24:].any()


def test_an_unknown_model_gets_the_nearest_names_first() -> None:
    with pytest.raises(ac.AdjCompressError, match=r"Model 'resnet51' is unknown\. Choices: .{0,40}resnet50"):
        ac.create_model("resnet51", 10)


def test_every_name_of_torchvision_is_known() -> None:
    assert {"resnet50", "mobilenet_v2", "inception_v3"} <= set(model_names())


def test_timm_and_users_own_models_are_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine_for_this_test.py").write_text(
        "from torch import nn\ndef net(num_classes, width=4) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ac.create_model("mine_for_this_test:net", 7, width=5)[1].weight.shape == (7, 5)
    assert ac.create_model("timm:resnet10t", 7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module:net", "needs the Python module no_such_module, which cannot be imported"),
        ("os:system", "os is a module of Python itself"),
        ("safetensors.torch:no_such", r"module safetensors\.torch has no function 'no_such'"),
        ("torch.hub:load", "is neither a torch.nn.Module class nor a function annotated to return one"),
        ("torch.nn:Conv2d", "does not take these arguments"),
        ("timm:resnet50_nonsense", "timm's model 'resnet50_nonsense' is unknown"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(name: str, text: str) -> None:
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.create_model(name, 10)


def test_a_mistake_in_somebodys_module_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistaken_for_this_test.py").write_text("import torch\nnet = torch.no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AttributeError, match="no_such_thing"):
        ac.create_model("mistaken_for_this_test:net", 7)


@pytest.mark.parametrize("outputs", [5, 1000])
def test_a_network_of_other_classes_than_the_datas_is_refused(outputs: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))
    with pytest.raises(ac.AdjCompressError, match=f"mine gives {outputs} logits for each image, and the data has 10 classes"):
        check_takes(network, torch.zeros(1, 3, 4, 4), "mine", 10)
    check_takes(network, torch.zeros(1, 3, 4, 4), "mine", outputs)
    check_takes(network, torch.zeros(1, 3, 4, 4), "mine")


def test_no_option_is_ignored() -> None:
    with pytest.raises(ac.AdjCompressError, match="does not take these arguments"):
        ac.create_model("xresnet18", 10, colour="red")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_loaded_from_state_dicts(tmp_path: Path, suffix: str) -> None:
    source, target, path = TinyNet(), TinyNet(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        wrapped = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, path)
    else:
        save_file(source.state_dict(), path)
    load_weights_(target, path)
    assert all(torch.equal(source.state_dict()[name], tensor) for name, tensor in target.state_dict().items())


def test_weights_that_do_not_fit_are_refused_with_both_lists(tmp_path: Path) -> None:
    torch.save({"stem.0.weight": torch.zeros(1), "other": torch.zeros(1)}, tmp_path / "w.pth")
    network = TinyNet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ac.AdjCompressError, match=r"Missing: first\.0\.weight.* Not in the network: other\."):
        load_weights_(network, tmp_path / "w.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_with_other_classes_say_so_and_can_keep_the_rest(tmp_path: Path) -> None:
    source, target = TinyNet(7), TinyNet(10)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ac.AdjCompressError, match="was trained on 7 classes, the data has 10"):
        load_weights_(target, tmp_path / "w.pth")
    load_weights_(target, tmp_path / "w.pth", new_classifier=True)
    assert torch.equal(target.stem[0].weight, source.stem[0].weight)


class HeadFirst(nn.Module):
    """Its classifier is declared before the layers that it follows."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head, self.body, self.neck = nn.Linear(6, classes), nn.Conv2d(3, 8, 3), nn.Linear(8, 6)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.neck(self.body(images).mean((2, 3))).relu())
        return logits


def test_the_classifier_is_the_layer_that_runs_last(tmp_path: Path) -> None:
    source, target, example = HeadFirst(7), HeadFirst(10), torch.zeros(1, 3, 8, 8)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ac.AdjCompressError, match="was trained on 7 classes, the data has 10"):
        load_weights_(target, tmp_path / "w.pth", example=example)
    load_weights_(target, tmp_path / "w.pth", new_classifier=True, example=example)
    assert torch.equal(target.neck.weight, source.neck.weight) and target.head.out_features == 10
    method = DropoutMethod.build(target, example, MethodOptions(dropout=0.5))
    assert method.classifier == "head" == DropoutMethod.restore(HeadFirst(10), method.settings()).classifier


def test_a_damaged_package_is_not_taken_for_weights(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    spec = ac.ModelSpec("cifar_resnet20", 10, 32)
    ac.save_package(spec.build(), path, model=spec)
    load_weights_(spec.build(), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ac.AdjCompressError, match=r"small\.safetensors is damaged: the checksum of its weights differs"):
        load_weights_(spec.build(), path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = TinyNet().state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    target = TinyNet()
    before = [parameter.clone() for parameter in target.parameters()]
    with pytest.raises(ac.AdjCompressError, match=r"w\.pth holds values that are not finite, in stem\.0\.weight"):
        load_weights_(target, tmp_path / "w.pth")
    assert all(torch.equal(*pair) for pair in zip(before, target.parameters(), strict=True))


def test_weights_never_run_pickled_code(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")  # a pickled module, not a state dict
    with pytest.raises(ac.AdjCompressError, match=r"w\.pth holds more than tensors, or is no weights file"):
        load_weights_(TinyNet(), tmp_path / "w.pth")
    (tmp_path / "damaged.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ac.AdjCompressError, match=r"damaged\.safetensors cannot be read as weights"):
        load_weights_(TinyNet(), tmp_path / "damaged.safetensors")
    with pytest.raises(ac.AdjCompressError, match="does not exist"):
        load_weights_(TinyNet(), tmp_path / "missing.pth")
