"""How do training images vary?

Transforms of a whole batch at once, every image by its own draw: they are transforms of torchvision's v2 kind, take
(N, 3, H, W), run where the batch lies and draw from torch's global generator. Labels of pixels move with their images. An
`Augmentation` pairs what is done to a batch with what is done to a file while it is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as pixels

from adjcompress.data.splits import IGNORED, FileSplit, ImageData, Preprocessing
from adjcompress.errors import pick


class _Joint(v2.Transform):
    """A transform that draws once for a batch and changes its images (N, 3, H, W), and a mask of labels (N, H, W), alike."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return self.draws(flat_inputs[0])

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        mask = isinstance(inpt, tv_tensors.Mask)
        plain = inpt.as_subclass(Tensor)
        return tv_tensors.wrap(self.changed(plain, params, mask), like=inpt) if mask else self.changed(plain, params, mask)

    def draws(self, images: Tensor) -> dict[str, Any]:
        """What chance decides for a batch."""
        raise NotImplementedError

    def changed(self, values: Tensor, params: dict[str, Any], mask: bool) -> Tensor:
        """Images (N, 3, H, W), or where `mask` labels (N, H, W), as was drawn."""
        raise NotImplementedError


class RandomFlips(_Joint):
    """Mirror each image left to right with probability `p`; any dtype."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def draws(self, images: Tensor) -> dict[str, Any]:
        return {"chosen": torch.rand(len(images), device=images.device) < self.p}

    def changed(self, values: Tensor, params: dict[str, Any], mask: bool) -> Tensor:
        return torch.where(params["chosen"].view(-1, *[1] * (values.ndim - 1)), values.flip(-1), values)


class RandomShifts(_Joint):
    """Pad each image by `padding` black pixels, that count for nothing, and cut its size out at a random place; any dtype."""

    def __init__(self, padding: int = 4) -> None:
        super().__init__()
        self.padding = padding

    def draws(self, images: Tensor) -> dict[str, Any]:
        count, _, height, width = images.shape
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count, 1), device=images.device)
        return {
            "images": torch.arange(count, device=images.device)[:, None, None],
            "rows": (top + torch.arange(height, device=images.device))[:, :, None],
            "columns": (left + torch.arange(width, device=images.device))[:, None, :],
        }

    def changed(self, values: Tensor, params: dict[str, Any], mask: bool) -> Tensor:
        padded = F.pad(values, [self.padding] * 4, value=IGNORED if mask else 0)
        places = params["images"], params["rows"], params["columns"]
        if mask:
            return padded[places]
        return padded.permute(0, 2, 3, 1)[places].permute(0, 3, 1, 2)


def _sampled(values: Tensor, grid: Tensor, mask: bool, align_corners: bool) -> Tensor:
    """Images sampled bilinearly at `grid` (N, H, W, 2), borders reflected; labels by the nearest."""
    if mask:
        floats = values[:, None].float()
        found = F.grid_sample(floats, grid, "nearest", "reflection", align_corners)
        return found[:, 0].to(values.dtype)
    return F.grid_sample(values, grid, padding_mode="reflection", align_corners=align_corners)


class RandomProjections(_Joint):
    """Rotate within `degrees` with probability `p`; with probability `p`, warp by up to `warp` and zoom in up to `zoom`.

    A rotation of the image as it is seen, also where that is no square. One bilinear sampling for all three, borders
    reflected. Float images.
    """

    def __init__(self, degrees: float, p: float = 0.75, warp: float = 0.2, zoom: float = 1.1) -> None:
        super().__init__()
        self.degrees, self.p, self.warp, self.zoom = degrees, p, warp, zoom

    def draws(self, images: Tensor) -> dict[str, Any]:
        count, device = len(images), images.device
        rotated, warped = torch.rand(2, count, device=device) < self.p
        angle = (torch.rand(count, device=device) * 2 - 1) * math.radians(self.degrees) * rotated
        scale = 1 / (1 + torch.rand(count, device=device) * (self.zoom - 1) * warped)
        tilt = (torch.rand(2, count, device=device) * 2 - 1) * self.warp * warped
        zero, one = torch.zeros(count, device=device), torch.ones(count, device=device)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        height, width = images.shape[-2:]
        aspect = max(height - 1, 1) / max(width - 1, 1)  # places go from -1 to 1 along both sides
        projection = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero, tilt[0], tilt[1], one], -1).view(
            count, 3, 3
        )
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, side, device=device) for side in images.shape[-2:]), indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ projection.transpose(1, 2)  # (N, HW, 3)
        return {"grid": (points[..., :2] / points[..., 2:]).view(count, *images.shape[-2:], 2)}

    def changed(self, values: Tensor, params: dict[str, Any], mask: bool) -> Tensor:
        return _sampled(values, params["grid"], mask, align_corners=True)


class Cutout(v2.Transform):
    """Cover a square of `side` pixels around a random place of each image by `colour`, 0..255 (arXiv:1708.04552).

    The square may reach beyond the image. Labels of pixels stay: what is covered is to be guessed. Float images.
    """

    def __init__(self, side: int, colour: Sequence[float]) -> None:
        super().__init__()
        self.side, self.colour = side, tuple(colour)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        covered = [self._near(torch.randint(length, (len(inpt), 1), device=inpt.device), length) for length in inpt.shape[-2:]]
        square = covered[0][:, None, :, None] & covered[1][:, None, None, :]
        return torch.where(square, inpt.new_tensor(self.colour).view(1, -1, 1, 1), inpt)

    def _near(self, centre: Tensor, length: int) -> Tensor:
        """Which of `length` pixels (N, length) lie in the squares around `centre` (N, 1)."""
        first = centre - self.side // 2
        places = torch.arange(length, device=centre.device)
        return (places >= first) & (places < first + self.side)


class RandomLighting(v2.Transform):
    """With probability `p`, shift an image's brightness and stretch its contrast by up to `amount`. Float, 0..255."""

    def __init__(self, amount: float = 0.2, p: float = 0.75) -> None:
        super().__init__()
        self.amount, self.p = amount, p

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        shape = (len(inpt), 1, 1, 1)
        chosen = torch.rand(shape, device=inpt.device) < self.p
        shift, stretch = (torch.rand((2, *shape), device=inpt.device) * 2 - 1) * self.amount * chosen
        mean = inpt.mean((1, 2, 3), keepdim=True)
        return ((inpt - mean) * (1 + stretch) + mean + 255 * shift / 2).clamp(0, 255)


class RandomResizedCrops(_Joint):
    """Cut a random part of each image, `area` of it at an aspect from 3/4 to 4/3, and stretch it to the image's size."""

    def __init__(self, area: tuple[float, float] = (0.08, 1.0)) -> None:
        super().__init__()
        self.area = area

    def draws(self, images: Tensor) -> dict[str, Any]:
        count, device = len(images), images.device
        area = torch.empty(count, device=device).uniform_(*self.area)
        aspect = torch.empty(count, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        x, y = ((torch.rand(2, count, device=device) * 2 - 1) * (1 - torch.stack([width, height]))).unbind()
        zero = torch.zeros_like(x)
        affine = torch.stack([width, zero, x, zero, height, y], -1).view(count, 2, 3)
        return {"grid": F.affine_grid(affine, list(images.shape), align_corners=False)}

    def changed(self, values: Tensor, params: dict[str, Any], mask: bool) -> Tensor:
        return _sampled(values, params["grid"], mask, align_corners=False)


View = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """`batch`: float images 0..255 -> the same. `file`: an image as decoded, of any size -> uint8 of the network's size."""

    batch: v2.Transform
    file: Callable[[Preprocessing], View]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of float images, and their labels: classes (N,), which nothing changes, or maps (N, H, W)."""
        if labels.ndim == 1:
            return self.batch(images), labels
        images, mask = self.batch(images, tv_tensors.Mask(labels))
        return images, mask.as_subclass(Tensor)


@dataclass(frozen=True)
class Central:
    """The view that is validated and shipped: the centre, as if the shorter side had been resized first.

    A class, as `RandomPart` is: where loading processes are spawned, views must be picklable.
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        size = self.preprocessing.image_size
        side = min(image.size) * size / (self.preprocessing.resize or size)
        left, top = ((length - side) / 2 for length in image.size)
        return _cut(image, (left, top, left + side, top + side), size)


@dataclass(frozen=True)
class RandomPart:
    """A random part of 8 to 100 % of the area at an aspect from 3/4 to 4/3 [P1 appendix B], drawn from torch's generator."""

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        width, height = image.size
        for _ in range(10):
            area, aspect, x, y = torch.rand(4).tolist()
            area = (0.08 + 0.92 * area) * width * height
            aspect = math.exp(math.log(3 / 4) + aspect * math.log(16 / 9))
            w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
            if w <= width and h <= height:
                break
        else:
            w = h = min(width, height)
        left, top = x * (width - w), y * (height - h)
        return _cut(image, (left, top, left + w, top + h), self.preprocessing.image_size)


def _cut(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Tensor:
    """Cut and resize in one step, antialiased: four times faster than as transforms of a tensor, one after the other."""
    return pixels.pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0))


def _papers_cifar(degrees: float) -> list[v2.Transform]:
    return [RandomProjections(degrees), RandomLighting()]


def _cutout(preprocessing: Preprocessing) -> Cutout:
    """Of 16 pixels, in the colour that the network sees as zeros."""
    return Cutout(16, [255 * value for value in preprocessing.mean])


# What each augmentation does to a batch, apart from mirroring, and whether it mirrors.
_AUGMENTATIONS: dict[str, tuple[Callable[[Preprocessing], list[v2.Transform]], bool]] = {
    "none": (lambda _: [], False),
    "crop-flip": (lambda _: [RandomShifts()], True),
    "crop2-flip": (lambda _: [RandomShifts(2)], True),
    "crop-flip-cutout": (lambda preprocessing: [RandomShifts(), _cutout(preprocessing)], True),
    "papers-cifar": (lambda _: _papers_cifar(25), True),
    "papers-pets": (lambda _: _papers_cifar(10), True),
    "papers-imagenet": (lambda _: [RandomResizedCrops()], True),
}


def augmentation(name: str, data: ImageData) -> Augmentation:
    """The augmentation called `name` for this data.

    "none", "crop-flip" (pad by 4, cut, mirror), "crop2-flip" (pad by 2), "crop-flip-cutout" (and cover a square of 16 pixels),
    and the adjoined networks' papers': "papers-cifar", "papers-pets", "papers-imagenet" (P1 appendix B). Data whose images must
    not be mirrored are not. A file's random part is cut while it is decoded, at its full resolution.
    """
    make, mirrors = pick(_AUGMENTATIONS, name, "Augmentation")
    steps: list[v2.Transform] = make(data.preprocessing)
    file: Callable[[Preprocessing], View] = Central
    if name == "papers-imagenet" and isinstance(data.train, FileSplit):
        steps, file = [], RandomPart
    if mirrors and data.mirrors:
        steps.append(RandomFlips())
    return Augmentation(v2.Compose(steps) if steps else v2.Identity(), file)
