"""Labels of pixels: folders are read or refused, images and labels move together, what is ignored counts for nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from adjcompress_cli.main import main
from click.testing import CliRunner
from conftest import SIZE, write_segmentation
from PIL import Image
from torch import nn

import adjcompress as ac
from adjcompress.adjoined.loss import cross_entropy, divergence
from adjcompress.data import IGNORED, TensorSplit, augmentation, evaluation_batch
from adjcompress.data.augment import Augmentation, RandomFlips, RandomProjections, RandomResizedCrops, RandomShifts
from adjcompress.methods.budgeted import _by_image
from adjcompress.training import evaluate
from adjcompress.training.pictures import class_color


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmentation(tmp_path_factory.mktemp("data") / "streets")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_segmentation(tmp_path / "own", images=3)


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_and_labels_is_read_as_it_lies(folder: Path) -> None:
    data = ac.load_data(str(folder), ignore_label=7)
    assert data.segmentation and data.classes == ("low", "middle", "high") and data.preprocessing.size == SIZE
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 6, 6)
    assert isinstance(data.train, TensorSplit)
    assert data.train.images.shape == (6, 3, *SIZE) and data.train.labels.unique().tolist() == [IGNORED, 0, 1, 2]
    assert bool((data.train.labels[:, :4, :4] == IGNORED).all())
    for number in range(6):  # every image is with its own label
        classes = torch.from_numpy(np.array(Image.open(folder / "train" / "labels" / f"{number}.png")).astype(np.int16))
        assert torch.equal(data.train.labels[number][4:], classes[4:])
    assert data.preprocessing.example(2).shape == (2, 3, *SIZE)
    assert data.preprocessing == type(data.preprocessing).from_json(json.loads(json.dumps(vars(data.preprocessing))))


def test_a_size_that_is_asked_for_resizes_labels_without_mixing_them(folder: Path) -> None:
    data = ac.load_data(str(folder), 8, width=12, ignore_label=7)
    assert isinstance(data.train, TensorSplit)
    assert data.train.images.shape == (6, 3, 8, 12) and data.train.labels.unique().tolist() == [IGNORED, 0, 1, 2]
    square = ac.load_data(str(folder), 8, ignore_label=7)
    assert square.preprocessing.size == (8, 8) and square.preprocessing.width is None


def test_validation_is_held_out_where_there_is_none_and_limits_are_kept(tmp_path: Path) -> None:
    data = ac.load_data(str(write_segmentation(tmp_path / "two", ("train", "val"), 10)), validation=0.3, ignore_label=7)
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 3, 10)
    assert len(data.limited(2).train) == 2 and evaluation_batch(data) == 2**20 // (16 * 24)


def test_without_names_classes_are_numbers_and_labels_may_have_a_palette(own: Path) -> None:
    (own / "classes.txt").unlink()
    path = own / "train" / "labels" / "0.png"
    picture = Image.open(path)
    picture.putpalette([0, 0, 0] * 256)
    picture.save(path)
    assert ac.load_data(str(own), ignore_label=7).classes == ("0", "1", "2")


def test_the_ignored_label_has_no_class(own: Path) -> None:
    (own / "classes.txt").write_text("low\nmiddle\nhigh\n\nvoid\n")
    for path in own.glob("*/labels/*.png"):
        labels = np.array(Image.open(path))
        Image.fromarray(np.where(labels == 7, 3, labels).astype(np.uint8)).save(path)
    assert ac.load_data(str(own), ignore_label=3).classes == ("low", "middle", "high")


def damage(root: Path, what: str) -> None:
    labels, images = root / "train" / "labels", root / "train" / "images"
    if what == "alone":
        (labels / "1.png").unlink()
    elif what == "sizes":
        Image.new("L", (5, 5)).save(labels / "1.png")
    elif what == "differing":
        Image.new("RGB", (8, 8)).save(images / "1.png")
        Image.new("L", (8, 8)).save(labels / "1.png")
    elif what == "colours":
        Image.new("RGB", (24, 16)).save(labels / "1.png")
    elif what == "broken":
        (images / "1.png").write_bytes(b"no picture")
    elif what == "no labels":
        for path in (root / "test" / "labels").iterdir():
            path.unlink()
        (root / "test" / "labels").rmdir()
    elif what == "names":
        (root / "classes.txt").write_text("0 low\n2 high\n")
    elif what == "few names":
        (root / "classes.txt").write_text("low\nmiddle\n")
    elif what == "twice":
        Image.new("RGB", (24, 16)).save(images / "1.jpg")
    elif what in ("images alone", "labels alone"):
        for split in ("train", "val", "test") if what == "images alone" else ("train",):
            shutil.rmtree(root / split / ("labels" if what == "images alone" else "images"))
    elif what == "some numbers":
        (root / "classes.txt").write_text("0 low\nmiddle\n2 high\n")
    elif what in ("one class", "nothing counts"):
        (root / "classes.txt").unlink()
        for path in root.glob("*/labels/*.png") if what == "one class" else labels.iterdir():
            Image.new("L", (24, 16), 0 if what == "one class" else 7).save(path)
    elif what == "empty":
        for kind in (images, labels):
            for path in kind.iterdir():
                path.unlink()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("alone", "1 of its images and labels do not pair: 1."),
        ("sizes", "has 24 x 16 pixels and its label 5 x 5"),
        ("differing", "give one size for all with --image-size, such as 16x24"),
        ("colours", "a label has one channel of whole numbers"),
        ("broken", "is not a readable image"),
        ("no labels", "has no labels/"),
        ("names", "its numbers are not 0 to 1, each once"),
        ("few names", "labels run from 0 to 2, but there are 2 classes"),
        ("twice", "has two images of the name 1"),
        ("empty", "holds no image"),
        ("images alone", "has no labels/"),
        ("labels alone", "has no images/"),
        ("some numbers", "some lines have a number before the name and some have none"),
        ("one class", "has labels of one class only"),
        ("nothing counts", "every pixel has --ignore-label 7, so none counts"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(own: Path, what: str, text: str) -> None:
    damage(own, what)
    with pytest.raises(ac.AdjCompressError) as caught:
        ac.load_data(str(own), ignore_label=7)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_labels_that_are_no_class_and_sizes_that_are_none_are_refused(own: Path) -> None:
    with pytest.raises(ac.AdjCompressError, match=r"\(--ignore-label 255\): labels run from 0 to 7, but there are 3 classes"):
        ac.load_data(str(own))
    with pytest.raises(ac.AdjCompressError, match="--ignore-label 1 is not the last class"):
        ac.load_data(str(own), ignore_label=1)
    with pytest.raises(ac.AdjCompressError, match="--image-size 16x24: images of classes are cut square"):
        ac.load_data("digits", 16, width=24)
    with pytest.raises(ac.AdjCompressError, match="--image-size 4 is too small"):
        ac.load_data(str(own), 16, width=4)
    with pytest.raises(ac.AdjCompressError, match="has only train/"):
        ac.load_data(str(write_segmentation(own.parent / "one", ("train",))))


# --- augmentation, loss, metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [RandomFlips(), RandomShifts(), RandomProjections(25), RandomResizedCrops()], ids=repr)
def test_labels_move_with_their_images(transform: nn.Module) -> None:
    """Images that show their labels still do, but at borders, where colours mix and labels do not."""
    torch.manual_seed(0)
    labels = (
        torch.arange(6).repeat_interleave(8).view(1, 1, 48).expand(20, 32, 48) + torch.arange(4).repeat_interleave(8)[:, None]
    )
    images = labels[:, None].expand(20, 3, 32, 48) * 10.0 + 10
    moved, classes = Augmentation(transform, lambda _: None)(images, labels.contiguous())  # type: ignore[arg-type, return-value]
    assert classes.dtype == labels.dtype and classes.shape == labels.shape
    shown = (moved[:, 0] - 10) / 10
    counted = classes != IGNORED
    assert bool((moved[:, 0][~counted] == 0).all())  # what was padded
    right = (shown - classes).abs() < 0.5
    assert right[counted].float().mean() > 0.99
    assert not torch.equal(classes, labels)


def test_images_of_one_label_are_augmented_as_before(folder: Path) -> None:
    data = ac.load_data("digits")
    assert isinstance(data.train, TensorSplit)
    images, labels = data.train.batch(torch.arange(4))
    images = images.float()
    augment = augmentation("crop-flip", data)
    torch.manual_seed(1)
    expected = augment.batch(images)
    torch.manual_seed(1)
    moved, same = augment(images, labels)
    assert torch.equal(moved, expected) and same is labels


class Constant(nn.Module):
    """Logits that are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


def test_scores_are_over_the_pixels_that_count() -> None:
    labels = torch.tensor([[[0, 0], [1, IGNORED]], [[1, 1], [IGNORED, IGNORED]]])
    answers = torch.tensor([[[0, 1], [1, 2]], [[1, 0], [0, 0]]])
    logits = torch.nn.functional.one_hot(answers, 3).permute(0, 3, 1, 2).float() * 5
    batches = [(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), labels)]
    score = evaluate({"it": Constant(logits)}, batches, lambda images: images.float(), 3, per_pixel=True)["it"]
    assert score.accuracy == pytest.approx(3 / 5) and score.images == 2
    # class 0: 1 right of 1 + 1 + 1; class 1: 2 right of 2 + 1 + 1; class 2 neither occurs nor is answered where it counts
    assert score.mean_iou == pytest.approx((1 / 3 + 2 / 4) / 2)
    log_p = logits.log_softmax(1).permute(0, 2, 3, 1)[labels != IGNORED]
    own = -log_p[torch.arange(5), labels[labels != IGNORED]].mean().item()
    assert score.loss == pytest.approx(own, rel=1e-5)
    assert "mean_iou" in score.to_json()


def test_pixels_that_do_not_count_change_nothing_even_where_none_does() -> None:
    logits = torch.randn(3, 4, 2, 2)
    labels = torch.tensor([[[0, 1], [2, 3]], [[IGNORED] * 2] * 2, [[1, IGNORED], [IGNORED] * 2]])
    counted = labels != IGNORED
    picked = logits.permute(0, 2, 3, 1)[counted]
    torch.testing.assert_close(cross_entropy(logits, labels), torch.nn.functional.cross_entropy(picked, labels[counted]))
    assert float(cross_entropy(logits[1:2], labels[1:2])) == 0
    losses, counts = _by_image(logits, labels)
    assert counts.tolist() == [1, 0, 1] and float(losses[1]) == 0
    torch.testing.assert_close(losses[2], torch.nn.functional.cross_entropy(logits[2:, :, 0, 0], labels[2:, 0, 0]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_a_process_without_images_still_answers_for_segmentation() -> None:
    score = evaluate({"it": Constant(torch.zeros(1, 3, 2, 2))}, [], lambda images: images.float(), 3, per_pixel=True)["it"]
    assert score.mean_iou is not None and score.images == 0  # asked for like the others, for all to be added up


def test_the_divergence_of_maps_is_the_mean_over_pixels() -> None:
    full, small = torch.randn(2, 2, 5, 3, 4)
    by_pixel = [divergence(full[:, :, y, x], small[:, :, y, x]) for y in range(3) for x in range(4)]
    torch.testing.assert_close(divergence(full, small), torch.stack(by_pixel).mean())


def test_pixels_that_do_not_count_change_the_divergence_as_little_as_the_cross_entropy() -> None:
    full, small = torch.randn(2, 2, 5, 3, 4)
    labels = torch.randint(0, 5, (2, 3, 4))
    labels[0, :2] = labels[1, 2, 3] = IGNORED
    counted = labels != IGNORED
    picked = [logits.permute(0, 2, 3, 1)[counted] for logits in (full, small)]
    torch.testing.assert_close(divergence(full, small, labels), divergence(*picked))
    loss = ac.adjoint_loss(full, {"small": small}, labels, 0.7, small_labels=0.25)
    other = torch.where(counted[:, None], full, 50 * torch.randn_like(full))
    assert torch.equal(ac.adjoint_loss(other, {"small": small}, labels, 0.7, small_labels=0.25).total, loss.total)
    nothing = ac.adjoint_loss(full, {"small": small}, torch.full_like(labels, IGNORED), 1.0)
    assert float(nothing.total) == 0


def test_a_rotation_keeps_lengths_and_angles_of_images_that_are_no_squares() -> None:
    torch.manual_seed(0)
    rotation, height, width = RandomProjections(25, p=1.0, warp=0.0, zoom=1.0), 45, 61
    grid = rotation.draws(torch.zeros(8, 3, height, width))["grid"]
    pixels = grid * torch.tensor([width - 1, height - 1]) / 2
    across, down = pixels[:, :, 1:] - pixels[:, :, :-1], pixels[:, 1:] - pixels[:, :-1]
    torch.testing.assert_close(across.norm(dim=-1), torch.ones(8, height, width - 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(down.norm(dim=-1), torch.ones(8, height - 1, width), atol=1e-4, rtol=0)
    product = (across[:, 1:] * down[:, :, 1:]).sum(-1)
    torch.testing.assert_close(product, torch.zeros_like(product), atol=1e-4, rtol=0)


# --- all the way ----------------------------------------------------------------------------------------------------


FABRIC = ("--model", "neural_fabric", *(f"--model-option={text}" for text in ("columns=2", "scales=2", "channels=4")))
SHORT = ("--recipe", "cifar", "--epochs", "4", "--batch-size", "2")


@pytest.fixture(scope="module")
def job(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, object]]]:
    """A search on the folder, and what the four commands said of it."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("job"))
    asked = ("--data", str(folder), "--ignore-label", "7", *FABRIC, *SHORT, "--method", "budgeted", "--budget", "macs=0.7")
    commands = {
        "train": ("train", *asked),
        "extract": ("extract",),
        "export": ("export", "model.onnx"),
        "bench": ("bench", "--duration", "0.1", "--threads", "2", "--executor", "sequential", "--executor", "parallel"),
    }
    said = {}
    try:
        for name, arguments in commands.items():
            done = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
            assert done.exit_code == 0, done.stderr
            said[name] = json.loads(done.stdout)
        yield said
    finally:
        os.chdir(before)


def test_a_fabric_is_searched_extracted_exported_and_measured(job: dict[str, dict[str, object]]) -> None:
    test = job["train"]["test"]["budgeted"]  # type: ignore[index]
    assert 0 < test["mean_iou"] <= 1 and 0.3 < test["accuracy"] <= 1
    extract, export = job["extract"], job["export"]
    assert 0 < extract["reestimated"]["agreement"] <= 1  # type: ignore[index]
    assert extract["certificate"]["max_difference"] == 0 and extract["macs"] < extract["full_macs"]  # type: ignore[index]
    assert set(extract["accuracy"]) == {"test", "test mean IoU"}  # type: ignore[arg-type]
    assert extract["preprocessing"]["width"] == 24  # type: ignore[index]
    assert export["certificate"]["agreement"] == 1  # type: ignore[index]
    timings = job["bench"]["timings"]
    assert [Path(timing["path"]).name for timing in timings] == ["model.onnx", "whole.onnx"] * 2  # type: ignore[attr-defined]
    assert [timing["executor"] for timing in timings] == ["sequential"] * 2 + ["parallel"] * 2  # type: ignore[attr-defined]
    network = ac.load_package(str(extract["path"]))
    assert network(torch.zeros(1, 3, *SIZE)).shape == (1, 3, *SIZE)


def test_the_report_shows_pictures_what_was_kept_and_how_it_came(job: dict[str, dict[str, object]]) -> None:
    page = Path(str(job["train"]["report"])).read_text()
    assert page.count("data:image/png;base64") == 4 * 3 and "mean intersection over union" in page
    for title in ("What was kept", "Costs over the training", "Probabilities of the gates", "Pixel accuracy on validation"):
        assert f"<h3>{title}</h3>" in page
    assert (
        "parallel executor" in page
        and "--executor parallel" in page
        and "The budget&#39;s cost (macs), as a part of the whole network&#39;s" in page
    )
    labels = Image.open(Path(str(job["train"]["run"])) / "pictures" / "0-labels.png")
    assert labels.mode == "P" and labels.size == (24, 16) and labels.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert len({class_color(number) for number in range(255)}) == 255


def test_a_fabric_is_exported_in_half_precision(job: dict[str, dict[str, object]], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", str(tmp_path / "half.onnx"), "--fp16", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["kind"] == "float16"


def test_a_searched_architecture_is_the_model_of_another_run(job: dict[str, dict[str, object]], folder: Path) -> None:
    package = str(job["extract"]["path"])
    asked = ("--data", str(folder), "--ignore-label", "7", "--model", f"package:{package}", "--way", "papers")
    done = CliRunner().invoke(main, ["train", *asked, *SHORT, "--epochs", "1", "--alpha", "2", "--run", "both", "--json"])
    assert done.exit_code == 0, done.stderr
    config = json.loads(Path("both/config.json").read_text())
    assert config["model"]["name"] == "neural_fabric" and config["model"]["options"]["nodes"]
    full = ac.open_run(Path("both")).method().deployables()["full"]
    assert ac.count(full, torch.zeros(1, 3, *SIZE)).parameters == job["extract"]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "resnet18", "--method", "standard"), "gives logits (N, classes), and the data asks for a class for every"),
        ((*FABRIC, "--method", "standard", "--image-size", "17x24"), "at 2 scales, sides must be multiples of 2"),
        ((*FABRIC, "--method", "standard", "--label-smoothing", "0.1"), "--label-smoothing spreads the labels of images"),
        ((*FABRIC, "--image-size", "wide"), "a number of pixels such as 64 is expected, or height x width such as 180x240"),
        (("--model", "package:no.safetensors"), "--model package:no.safetensors is no package"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder: Path, arguments: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["train", "--data", str(folder), "--ignore-label", "7", *arguments])
    assert done.exit_code != 0 and text in done.stderr, done.stderr
    assert not Path("runs").exists()


def test_a_network_for_pixels_is_refused_on_images_of_classes() -> None:
    done = CliRunner().invoke(main, ["train", *FABRIC, "--model-option", "segmentation=true", "--method", "standard"])
    assert done.exit_code == 1 and "the data asks for one class for every image" in done.stderr
