"""Every source gives the same kind of data, each image is seen once an epoch, and bad data are named."""

from __future__ import annotations

import gc
import pickle
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

import adjcompress as ac
from adjcompress.data import Central, DataSpec, TrainingBatches, augmentation, epoch_batches, evaluation_batches
from adjcompress.data.augment import Cutout, RandomFlips, RandomPart, RandomProjections, RandomResizedCrops, RandomShifts
from adjcompress.data.loader import _Files
from adjcompress.data.pictures import not_pictures, rgb
from adjcompress.data.splits import Preprocessing, TensorSplit

CPU = torch.device("cpu")


def write_npz(path: Path, **changes: object) -> Path:
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
        "classes": np.array(["a", "b", "c", "d"]),
    }
    np.savez(path, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})
    return path


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    random = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for index in range(6):
                grey = index == 0  # a grayscale file among the others, and sizes that differ
                shape = (20 + index, 30) if grey else (20 + index, 30, 3)
                image = random.integers(number * 100, number * 100 + 50, shape, dtype=np.uint8)
                Image.fromarray(image).save(root / split / name / f"{index}.{'png' if index % 2 else 'jpg'}")
    return root


def test_digits_are_the_whole_set_in_a_fixed_stratified_split() -> None:
    data = ac.load_data("digits")
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    for split in (data.train, data.validation, data.test):
        assert split.images.shape[1:] == (3, 32, 32) and split.images.dtype == torch.uint8
        counts = split.labels.bincount(minlength=10) / len(split)
        assert counts.min() > 0.09 and counts.max() < 0.11
    again = ac.load_data("digits")
    assert torch.equal(data.test.images, again.test.images)
    assert not data.mirrors


def test_no_digit_is_in_two_splits() -> None:
    data = ac.load_data("digits")
    seen = [{image.numpy().tobytes() for image in split.images} for split in (data.train, data.validation, data.test)]
    assert sum(len(part) for part in seen) - len(set.union(*seen)) <= 1  # the scans themselves hold one twin at most


def test_an_npz_file_is_read_and_a_validation_split_held_out(tmp_path: Path) -> None:
    data = ac.load_data(str(write_npz(tmp_path / "a.npz")), validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 8)
    assert data.validation.labels.bincount().tolist() == [2, 2, 2, 2]
    assert data.classes == ("a", "b", "c", "d")
    assert data.preprocessing.image_size == 16


def test_what_means_nothing_to_the_data_is_refused(tmp_path: Path) -> None:
    own = str(write_npz(tmp_path / "own.npz", x_val=np.zeros((4, 16, 16, 3), np.uint8), y_val=np.arange(4)))
    for source, images in (("digits", "179"), (own, "4")):
        with pytest.raises(ac.AdjCompressError, match=rf"--validation 0\.2: .* has a validation split of its own, of {images}"):
            ac.load_data(source, validation=0.2)
    with pytest.raises(ac.AdjCompressError, match=r"--ignore-label 7 is for segmentation, where pixels have labels"):
        ac.load_data("digits", ignore_label=7)
    with pytest.raises(ac.AdjCompressError, match=r"--validation 0\.2: digits has a validation split"):
        ac.train(ac.TrainOptions(data=DataSpec("digits", validation=0.2)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_of_any_byte_order_and_names_as_bytes_are_read(tmp_path: Path) -> None:
    labels, names = (np.arange(40) % 4).astype(">i4"), np.array([b"a", b"b", b"c", b"d"])
    data = ac.load_data(str(write_npz(tmp_path / "a.npz", y_train=labels, classes=names)), validation=0.2)
    assert data.train.labels.bincount().tolist() == [8] * 4 and data.classes == ("a", "b", "c", "d")
    numbers = np.array([0.1, 0.2, 0.3, 4], np.float32)
    assert ac.load_data(str(write_npz(tmp_path / "b.npz", classes=numbers))).classes == ("0.1", "0.2", "0.3", "4.0")


def test_labels_may_stand_in_a_column(tmp_path: Path) -> None:
    data = ac.load_data(str(write_npz(tmp_path / "a.npz", y_train=np.arange(40)[:, None] % 4)), validation=0.2)
    assert data.train.labels.shape == (32,) and data.validation.labels.shape == (8,)


def test_grey_images_get_three_channels_and_any_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grey = {name: random.integers(0, 256, (n, 28, 28), dtype=np.uint8) for name, n in (("x_train", 40), ("x_test", 8))}
    data = ac.load_data(str(write_npz(tmp_path / "a.npz", **grey)), image_size=32)
    assert data.train.images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": None}, r"lacks classes; it has x_train"),
        ({"classes": 4}, r"classes has the shape \(\); a name for each class is expected"),
        ({"x_train": np.zeros((40, 16, 16, 3), np.float32)}, r"x_train is float32 .*; uint8"),
        ({"y_train": np.arange(40) / 10}, r"y_train is float64 \(40,\); whole numbers"),
        ({"y_train": np.zeros((40, 2), int)}, r"y_train is int64 \(40, 2\); whole numbers"),
        ({"y_train": np.arange(39) % 4}, r"40 images and y_train 39 labels"),
        ({"y_train": np.arange(40) % 5}, r"labels of y_train run from 0 to 4, but there are 4 classes"),
        ({"y_train": np.full(40, -100)}, r"labels of y_train run from -100 to -100, but there are 4 classes"),
        ({"y_test": np.full(8, 2**64 - 100, np.uint64)}, r"labels of y_test run from 18446744073709551516 to"),
        ({"classes": np.array(["a", "b", "a", "c"])}, r"classes has a more than once"),
        ({"classes": np.array(["a"]), "y_train": np.zeros(40, int)}, r"classes has a; a classifier needs two at least"),
    ],
)
def test_a_bad_npz_file_says_what_is_wrong(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.load_data(str(write_npz(tmp_path / "a.npz", **changes)))


def test_sources_that_are_not_there_or_no_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nonsense")
    (tmp_path / "a.txt").write_text("")
    for source, text in (
        ("cifar11", r"Data 'cifar11' is unknown\. Choices: cifar10"),
        (str(tmp_path / "none.npz"), "does not exist"),
        (str(tmp_path / "damaged.npz"), r"is not a readable \.npz file"),
        (str(tmp_path / "a.txt"), r"is a \.txt file"),
    ):
        with pytest.raises(ac.AdjCompressError, match=text):
            ac.load_data(source)


def test_without_a_network_a_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADJCOMPRESS_DATA", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(ac.AdjCompressError, match=r"could not be downloaded \(no route to host\)\. Connect to the network"):
        ac.load_data("cifar10")


@settings(max_examples=40, deadline=None)
@given(images=st.integers(0, 60), batch=st.integers(1, 25), world=st.integers(1, 4))
def test_evaluation_sees_every_image_once_in_order_in_batches_of_one_size_but_one(images: int, batch: int, world: int) -> None:
    split = TensorSplit(torch.arange(images).view(-1, 1, 1, 1), torch.arange(images))
    shares = [list(evaluation_batches(split, Central(Preprocessing(1)), batch, CPU, rank, world)) for rank in range(world)]
    assert torch.cat([labels for share in shares for _, labels in share] or [split.labels]).tolist() == list(range(images))
    for share in shares:
        sizes = [len(labels) for _, labels in share]
        assert not sizes or (max(sizes) <= batch and max(sizes) - min(sizes) <= 1 and min(sizes) > 0)


def test_what_loads_files_can_be_sent_to_a_process_that_is_spawned(tmp_path: Path) -> None:
    data = ac.load_data(str(write_folder(tmp_path)), image_size=16, validation=0.2)
    for name in ("none", "papers-imagenet"):
        view = augmentation(name, data).file(data.preprocessing)
        files = pickle.loads(pickle.dumps(_Files(data.train, view, 3)))
        torch.testing.assert_close(files[0, 1], _Files(data.train, view, 3)[0, 1], rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_images_is_read_by_class(tmp_path: Path, workers: int) -> None:
    data = ac.load_data(str(write_folder(tmp_path)), image_size=16, validation=0.2)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 12)
    batches = list(evaluation_batches(data.test, Central(data.preprocessing), 5, CPU, workers=workers))
    assert [len(labels) for _, labels in batches] == [4, 4, 4]
    images = torch.cat([images for images, _ in batches]).float()
    assert images.shape == (12, 3, 16, 16)
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(images.mean((1, 2, 3)) > 75, labels == 1)  # cats are dark, dogs are light


def test_the_central_view_is_the_centre_of_the_resized_image() -> None:
    """As torchvision's Resize and CenterCrop, which take two steps: a smooth image comes out the same."""
    y, x = np.mgrid[0:120, 0:200]
    image = Image.fromarray(np.stack([x, y, (x + y) // 2], -1).astype(np.uint8))
    preprocessing = ac.data.Preprocessing(64, resize=70)
    expected = v2.Compose([v2.PILToTensor(), v2.Resize(70, antialias=True), v2.CenterCrop(64)])(image)
    found = Central(preprocessing)(image)
    assert found.shape == (3, 64, 64) and found.dtype == torch.uint8
    assert (found.float() - expected.float()).abs().max() <= 2


def test_a_random_part_lies_inside_and_varies() -> None:
    y, x = np.mgrid[0:100, 0:60]
    image = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    torch.manual_seed(0)
    views = [RandomPart(ac.data.Preprocessing(32))(image) for _ in range(30)]
    sides = {(int(view[0].max() - view[0].min()), int(view[1].max() - view[1].min())) for view in views}
    assert len(sides) > 20
    assert all(view[0].max() <= 59 and view[1].max() <= 99 for view in views)


def test_what_a_file_gives_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    data = ac.load_data(str(write_folder(tmp_path)), image_size=16)
    augment = augmentation("papers-imagenet", data)
    seen = []
    for workers in (0, 2):
        batches = TrainingBatches(data.train, augment.file(data.preprocessing), 4, 0, CPU, workers=workers)
        list(batches.epoch(0))
        seen.append(torch.cat([images for images, _ in batches.epoch(1)]))
    assert torch.equal(*seen)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ac.AdjCompressError, match=r"has neither train/ nor test/"):
        ac.load_data(str(tmp_path))
    write_folder(tmp_path / "a", ("train",), ("cat", "dog"))
    write_folder(tmp_path / "a", ("test",), ("cat", "cow"))
    with pytest.raises(ac.AdjCompressError, match="train/ and test/ have different classes: cow, dog are in one"):
        ac.load_data(str(tmp_path / "a"))
    write_folder(tmp_path / "b")
    for path in (tmp_path / "b" / "train" / "dog").iterdir():
        path.unlink()
    with pytest.raises(ac.AdjCompressError, match=r"train/dog holds no image"):
        ac.load_data(str(tmp_path / "b"))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_of_16_bits_a_channel_the_upper_8_are_seen(tmp_path: Path, name: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(np.asarray(rgb(image)), np.repeat((levels // 257).astype(np.uint8)[..., None], 3, axis=2))
    with pytest.raises(ValueError, match="32 bits"):
        rgb(Image.fromarray(levels.astype(np.float32)))


def test_of_arrays_that_are_no_squares_the_central_square_is_seen(tmp_path: Path) -> None:
    wide = np.zeros((40, 16, 32, 3), np.uint8)
    wide[:, :, :8] = 255  # outside of the square
    wide[:, :8, 8:24] = 100
    data = ac.load_data(str(write_npz(tmp_path / "a.npz", x_train=wide)))
    assert data.preprocessing.image_size == 16
    assert data.train.images[0, 0].tolist() == [[100] * 16] * 8 + [[0] * 16] * 8


def test_arrays_are_resized_in_parts_as_they_would_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for images_at_a_time in (7, 1000):
        monkeypatch.setattr("adjcompress.data.sources._RESIZED", images_at_a_time)
        found.append(ac.load_data(str(write_npz(tmp_path / "a.npz")), image_size=24).train.images)
    assert found[0].shape[-2:] == (24, 24) and found[0].dtype == torch.uint8 and torch.equal(*found)


def test_a_picture_of_more_pixels_than_anybody_means_is_no_picture(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert not_pictures([tmp_path / "huge.png"]) == [tmp_path / "huge.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dog" / "3.png").write_bytes(b"not a picture")
    data = ac.load_data(str(tmp_path), image_size=16)
    with pytest.raises(ac.AdjCompressError, match=r"dog/3\.png is not a readable image") as error:
        list(evaluation_batches(data.test, Central(data.preprocessing), 5, CPU, workers=workers))
    assert "\n" not in str(error.value)
    with pytest.raises(ac.AdjCompressError, match=r"dog/3\.png of .* cannot be read as images: remove or replace them\."):
        data.check_files()
    (tmp_path / "test" / "dog" / "3.png").unlink()
    ac.load_data(str(tmp_path), image_size=16).check_files()
    del error
    gc.collect()  # the traceback holds the loader; collected during a later test, its workers would be waited for


@settings(max_examples=50, deadline=None)
@given(
    images=st.integers(8, 200),
    batch=st.integers(1, 64),
    world=st.integers(1, 4),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_each_image_is_seen_once_an_epoch_by_all_processes_together(
    images: int, batch: int, world: int, seed: int, epoch: int
) -> None:
    ranks = [epoch_batches(images, batch, seed, epoch, rank, world) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    seen = torch.cat([indices for batches in ranks for indices in batches])
    assert sorted(seen.tolist()) == list(range(images))
    assert max(len(indices) for batches in ranks for indices in batches) <= batch


def test_two_processes_take_together_what_one_takes_with_twice_the_batch() -> None:
    one = epoch_batches(64, 16, 0, 3)
    first, second = (epoch_batches(64, 8, 0, 3, rank, 2) for rank in (0, 1))
    for whole, left, right in zip(one, first, second, strict=True):
        assert torch.equal(whole, torch.cat([left, right]))


def test_before_they_take_turns_steps_see_the_first_half_alone(digits: ac.ImageData) -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    split = TensorSplit(pixels, torch.zeros(40, dtype=torch.long))
    batches = TrainingBatches(split, Central(digits.preprocessing), 10, 0, CPU, halves_after=0.375, epochs=4)
    seen = [[set(images[:, 0, 0, 0].tolist()) for images, _ in batches.epoch(epoch)] for epoch in range(4)]
    first = {image for step in seen[0] for image in step}
    assert batches.steps == 4 and len(first) == 20  # six of sixteen steps: an epoch and a half
    for number, step in enumerate(step for epoch in seen for step in epoch):
        assert step <= first if number < 6 or number % 2 == 0 else not step & first
    plain = TrainingBatches(split, Central(digits.preprocessing), 10, 0, CPU, epochs=4)
    assert {image for images, _ in plain.epoch(0) for image in images[:, 0, 0, 0].tolist()} == set(range(40))


def test_an_epoch_can_begin_in_the_middle(digits: ac.ImageData) -> None:
    batches = TrainingBatches(digits.train, Central(digits.preprocessing), 16, 0, CPU)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start=3))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize("transform", [RandomFlips(), RandomShifts(), RandomProjections(25.0), RandomResizedCrops()])
def test_each_image_varies_by_its_own_draw(transform: v2.Transform) -> None:
    torch.manual_seed(0)
    one = torch.rand(1, 3, 24, 24) * 255
    varied = transform(one.expand(16, -1, -1, -1))
    assert varied.shape == (16, 3, 24, 24)
    assert len({image.numpy().tobytes() for image in varied}) > 1
    assert varied.min() >= 0 and varied.max() <= 255


def test_cutout_covers_a_square_of_each_image_that_the_network_sees_as_zeros(digits: ac.ImageData) -> None:
    torch.manual_seed(0)
    side, colour, images = 6, (10.0, 20.0, 30.0), torch.rand(400, 3, 20, 24) * 200 + 40  # nowhere of that colour
    varied = Cutout(side, colour)(images)
    covered = (varied != images).any(1)
    assert torch.equal(varied, torch.where(covered[:, None], torch.tensor(colour).view(1, 3, 1, 1), images))
    for axis in (1, 2):
        places = covered.any(axis)
        assert torch.equal(places.sum(1) * covered.any(3 - axis).sum(1), covered.sum((1, 2)))  # a rectangle
        assert set(places.sum(1).tolist()) == {3, 4, 5, 6}  # its centre lies inside the image
        assert places.any(0).all()
    assert RandomProjections(10.0)(torch.rand(2, 3, 8, 1)).shape == (2, 3, 8, 1)
    labels = tv_tensors.Mask(torch.randint(0, 5, (4, 20, 24)))
    assert torch.equal(Cutout(side, colour)(images[:4], labels)[1], labels)
    torch.manual_seed(1)
    seen = digits.preprocessing.normalise(augmentation("crop-flip-cutout", digits).batch(torch.full((8, 3, 32, 32), 250.0)))
    assert all(64 <= int((image.abs() < 1e-5).all(0).sum()) <= 256 for image in seen)


def test_data_that_must_not_be_mirrored_are_not(digits: ac.ImageData) -> None:
    """Images that are light on the left stay so, but for data whose images may be mirrored."""
    torch.manual_seed(0)
    images = torch.zeros(64, 3, 32, 32)
    images[..., :12] = 255.0
    mirrored = {}
    for mirrors in (False, True):
        varied = augmentation("crop-flip", replace(digits, mirrors=mirrors)).batch(images)
        mirrored[mirrors] = int((varied[..., 16:].mean((1, 2, 3)) > varied[..., :16].mean((1, 2, 3))).sum())
    assert mirrored[False] == 0 and 16 < mirrored[True] < 48


def test_normalised_pixels_have_imagenet_statistics(digits: ac.ImageData) -> None:
    grey = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    normalised = digits.preprocessing.normalise(grey)
    assert torch.allclose(normalised[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


def test_an_unknown_augmentation_lists_the_choices(digits: ac.ImageData) -> None:
    with pytest.raises(ac.AdjCompressError, match=r"Augmentation 'papers-cifr' is unknown\. Choices: papers-cifar"):
        augmentation("papers-cifr", digits)
