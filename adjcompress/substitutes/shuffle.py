"""Linear shuffle: grouped 1x1, channel shuffle, depthwise k x k, grouped 1x1, with nothing between. arXiv:1906.00859.

It replaces a k x k convolution as a whole: the depthwise convolution works on the narrow middle and carries the stride.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.substitutes.layer import Pair, Substitute

_SQUEEZE = 4
_SWEEPS = 20


class ChannelShuffle(nn.Module):
    """Interleaves `groups` blocks of channels: (N, C, H, W) -> the same; output j groups + i is input i (C / groups) + j.

    `selection` (C, C) is 1 where an output is an input: by it the surgery knows such a layer and cuts both sides, the inputs
    by whole groups. An output whose input was cut is zero: of a layer cut to 1 / alpha, 1 - 1 / alpha of the channels that are
    left in the middle. They are computed all the same, which costs a cut shuffle network some of what it saves.
    """

    selection: Tensor

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        source = torch.arange(channels).view(groups, channels // groups).T.flatten()
        self.register_buffer("selection", torch.nn.functional.one_hot(source, channels).float(), persistent=False)
        self.whole = (channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        shuffled = images.index_select(1, self.selection.argmax(1))
        if tuple(self.selection.shape) == self.whole:
            return shuffled
        return shuffled * self.selection.amax(1).to(images.dtype)[:, None, None]


class LinearShuffle(Substitute):
    """`reduce` (grouped, inputs -> b), shuffle, `depthwise` k x k on b, `expand` (grouped, b -> outputs); b = outputs // 4.

    `setting`: the groups that are asked for, lowered to the next number that divides inputs, outputs and b; `groups` is what
    came out. Parameters: inputs b / g + b k^2 + b outputs / g.
    """

    name = "shuffle"
    setting_is = "groups"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        setting: float,
        stride: Pair = (1, 1),
        bias: bool = False,
        kernel: Pair = (1, 1),
        padding: Pair | str = (0, 0),
        dilation: Pair = (1, 1),
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(inputs, outputs, setting, stride)
        self.groups, middle = groups_for(inputs, outputs, setting), self.middle(outputs)
        self.reduce = nn.Conv2d(inputs, middle, 1, groups=self.groups, bias=False)
        self.shuffle = ChannelShuffle(middle, self.groups)
        spatial = {"stride": stride, "padding": padding, "dilation": dilation, "padding_mode": padding_mode}
        self.depthwise = nn.Conv2d(middle, middle, kernel, groups=middle, bias=False, **spatial)  # type: ignore[arg-type]
        self.expand = nn.Conv2d(middle, outputs, 1, groups=self.groups, bias=bias)
        for layer in (self.reduce, self.depthwise, self.expand):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")

    @classmethod
    def check(cls, inputs: int, outputs: int, setting: float) -> None:
        if not float(setting).is_integer() or setting < 1:
            raise AdjCompressError(f"shuffle takes a whole number of groups from 1 on as its setting, not {setting:g}.")

    @property
    def used(self) -> float:
        return self.groups

    @staticmethod
    def middle(outputs: int) -> int:
        """b, the channels between the two grouped convolutions."""
        return max(1, outputs // _SQUEEZE)

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float, kernel: Pair = (1, 1)) -> int:
        groups, middle = groups_for(inputs, outputs, setting), cls.middle(outputs)
        return middle * (inputs + outputs) // groups + middle * math.prod(kernel)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.expand(self.depthwise(self.shuffle(self.reduce(images))))
        return result

    @property
    def bias(self) -> nn.Parameter | None:  # type: ignore[override]
        return cast(nn.Parameter | None, self.expand.bias)

    def compressed(self) -> list[nn.Parameter]:
        """The two grouped matrices; the depthwise kernel stands for none."""
        return [cast(nn.Parameter, layer.weight) for layer in (self.reduce, self.expand)]

    def dense_weight(self) -> Tensor:
        """(outputs, inputs, k, k) of the dense convolution, of the same stride and padding, that computes the same."""
        reduce, expand = (_ungrouped(layer) for layer in (self.reduce, self.expand))  # (b, inputs), (outputs, b)
        source = self.shuffle.selection.to(reduce.dtype)
        return torch.einsum("ob,bhw,bi->oihw", expand, self.depthwise.weight[:, 0], source @ reduce)

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """Fit a 1x1 convolution's matrix (outputs, inputs)."""
        self.approximate_kernel_(matrix[:, :, None, None])

    @torch.no_grad()
    def approximate_kernel_(self, weight: Tensor) -> None:
        """Fit a whole kernel (outputs, inputs, k, k).

        Every middle channel joins one group of inputs to one of outputs, so the blocks of the kernel are fitted apart: each is
        a sum of as many rank-one terms as it has channels, best found by the singular values (k = 1) or, starting there, by
        alternating least squares.
        """
        groups, middle = self.groups, self.reduce.out_channels
        per_in, per_out, per_middle = self.inputs // groups, self.outputs // groups, middle // groups
        position = torch.arange(middle)
        into, out_of = position % groups, position // per_middle  # of the shuffled channel: its group of inputs and of outputs
        first, last, kernel = torch.zeros(middle, per_in), torch.zeros(self.outputs, per_middle), self.depthwise.weight[:, 0]
        kernel.zero_()
        for source in range(groups):
            for target in range(groups):
                channels = position[(into == source) & (out_of == target)]
                if not len(channels):
                    continue
                rows, columns = slice(target * per_out, (target + 1) * per_out), slice(source * per_in, (source + 1) * per_in)
                left, centre, right = _rank_one_terms(weight[rows, columns].flatten(2), len(channels))
                last[rows, channels - target * per_middle] = left
                kernel[channels] = centre.T.reshape(len(channels), *weight.shape[2:])
                first[source * per_middle + channels // groups] = right.T  # where the shuffle took it from
        self.reduce.weight.copy_(first[:, :, None, None])
        self.expand.weight.copy_(last[:, :, None, None])


def groups_for(inputs: int, outputs: int, setting: float) -> int:
    """The largest number of groups up to `setting` that divides inputs, outputs and the middle channels."""
    common = math.gcd(inputs, outputs, LinearShuffle.middle(outputs))
    return next(groups for groups in range(min(int(setting), common), 0, -1) if common % groups == 0)


def _ungrouped(layer: nn.Conv2d) -> Tensor:
    """A grouped 1x1 convolution's weight as one matrix (outputs, inputs) with blocks on its diagonal."""
    blocks = layer.weight.flatten(1).view(layer.groups, -1, layer.in_channels // layer.groups)
    return torch.block_diag(*blocks)


def _rank_one_terms(block: Tensor, terms: int) -> tuple[Tensor, Tensor, Tensor]:
    """(o, i, p) as a sum of products: factors (o, terms), (p, terms), (i, terms), alike in norm for each term."""
    _, inputs, points = block.shape
    left, values, right = torch.linalg.svd(block.flatten(1), full_matrices=False)
    terms_found = min(terms, len(values))
    factor_i, factor_p = [], []
    for number in range(terms_found):
        u, s, v = torch.linalg.svd(right[number].view(inputs, points), full_matrices=False)
        factor_i.append(u[:, 0] * s[0])
        factor_p.append(v[0])
    a, c, b = left[:, :terms_found] * values[:terms_found], torch.stack(factor_i, 1), torch.stack(factor_p, 1)
    for _ in range(_SWEEPS if points > 1 else 0):
        a = _solved(block.flatten(1), c, b)
        c = _solved(block.movedim(1, 0).flatten(1), a, b)
        b = _solved(block.movedim(2, 0).flatten(1), a, c)
    norms = torch.stack([factor.norm(dim=0) for factor in (a, b, c)])
    mean = norms.clamp(min=1e-30).log().mean(0).exp()
    a, b, c = (factor * (mean / norm.clamp(min=1e-30)) for factor, norm in zip((a, b, c), norms, strict=True))
    missing = (0, terms - terms_found)
    pad = torch.nn.functional.pad
    return pad(a, missing), pad(b, missing), pad(c, missing)


def _solved(unfolded: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The factor that, with the two others held, fits best: least squares against their column-wise Kronecker product."""
    product = (first[:, None] * second[None]).flatten(0, 1)  # (rows of both, terms)
    gram = (first.T @ first) * (second.T @ second)
    ridge = 1e-8 * gram.diagonal().mean() + 1e-30  # of a kernel of zeros too
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), (unfolded @ product).T).T
