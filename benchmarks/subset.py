"""A class-balanced part of a data set's training images, and all of its test images, as the .npz file that benchmarks read.

    python benchmarks/subset.py --data cifar100 --images 20000 --output cifar100-20k.npz

Of every class the first images are taken. The results in results/ come from another class-balanced part of as many images:
their copy of the data had them in another order. --data is an .npz file, or cifar10 or cifar100, which torchvision downloads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets

TORCHVISION = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


def arrays(source: str, folder: Path) -> dict[str, NDArray[Any]]:
    """Images (N, H, W, 3), labels (N,) and the names of the classes."""
    if source not in TORCHVISION:
        with np.load(source) as file:
            return {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test", "classes")}
    found = {"classes": np.array([])}
    for name in ("train", "test"):
        data = TORCHVISION[source](folder, train=name == "train", download=True)
        found |= {f"x_{name}": data.data, f"y_{name}": np.array(data.targets), "classes": np.array(data.classes)}
    return found


def balanced(labels: NDArray[Any], images: int) -> NDArray[np.int64]:
    """The numbers of the first images of every class, in the order of the file."""
    classes = np.unique(labels)
    if images % len(classes):
        raise SystemExit(f"--images {images} cannot be shared by {len(classes)} classes: give a multiple of that.")
    each = images // len(classes)
    numbers = [np.flatnonzero(labels == label)[:each] for label in classes]
    if any(len(own) < each for own in numbers):
        raise SystemExit(f"--images {images} needs {each} of every class, and there are {min(map(len, numbers))} of one.")
    return np.sort(np.concatenate(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, required=True, help="training images, of all classes together")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("data"), help="where torchvision keeps what it downloads")
    arguments = parser.parse_args()
    data: dict[str, Any] = arrays(arguments.data, arguments.folder)
    kept = balanced(data["y_train"], arguments.images)
    data |= {name: data[name][kept] for name in ("x_train", "y_train")}
    np.savez_compressed(arguments.output, **data)
    found = f"{len(kept):,} training images, {len(data['y_test']):,} for testing, {len(data['classes'])} classes"
    print(f"{arguments.output}: {found}")


if __name__ == "__main__":
    main()
