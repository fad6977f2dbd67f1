"""How is a width plan made from a network and an alpha?"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, nearest_first
from adjcompress.running import layers_run
from adjcompress.tensors import owners, tensors_of
from adjcompress.widths.channels import Axis, ChannelGroup, channel_groups, is_depthwise, sliced_tensors
from adjcompress.widths.check import check_slices
from adjcompress.widths.plan import GroupWidth, Range, WidthPlan

Alpha = float | Mapping[str, float]


def plan_widths(
    network: nn.Module,
    example: Tensor,
    alpha: Alpha,
    slim: str | Sequence[str] | None = None,
    keep: str | Sequence[str] | None = None,
    align: int = 1,
) -> WidthPlan:
    """Plan a small network: every slim group keeps its first ceil(channels / alpha) channels.

    `alpha` is a number, or a mapping from patterns of layer names to numbers (the first that matches counts; a group that
    none matches stays whole). `slim` and `keep` are patterns of layer names ('layer3', 'layer3.*', 'features.1?.*'); a
    group is slim if one of its layers is named by `slim` and none by `keep`. By default, as in the papers, stages 2 and
    up of a ResNet are slim; in other networks everything but the first convolution and the classifier. The kept channels
    are rounded up to a multiple of `align` and to whole groups of grouped convolutions. arXiv:2006.05624, a_alpha.

    `example` is a batch (N, C, H, W). The plan is tried out before it is returned (widths/check.py); what cannot be cut,
    a pattern that names nothing and an alpha that does not fit raise an AdjCompressError.
    """
    check_align(align)
    slim, keep = ((patterns,) if isinstance(patterns, str) else patterns for patterns in (slim, keep))
    by_alpha = tuple(alpha) if isinstance(alpha, Mapping) else ()
    found = slim_groups(network, example, slim, keep, by_alpha)
    widths = [_width(group, alpha, align, is_slim) for group, is_slim in found]
    if not any(width.slim for width in widths):
        raise nothing_is_slim(network, found)
    return _plan(network, example, [group for group, _ in found], widths)


@dataclass(frozen=True)
class SlimGroups:
    """The channel groups of a network, and for each whether it is slim. Iterating gives the pairs."""

    groups: tuple[ChannelGroup, ...]
    slim: tuple[bool, ...]

    def __iter__(self) -> Iterator[tuple[ChannelGroup, bool]]:
        return iter(zip(self.groups, self.slim, strict=True))


def slim_groups(
    network: nn.Module,
    example: Tensor,
    slim: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    by_alpha: Sequence[str] = (),
) -> SlimGroups:
    """Find the channel groups and which of them are slim, by patterns as in `plan_widths`; each must name a layer."""
    groups = channel_groups(network, example)
    cuttable = [layer for group in groups for layer in group.producers]
    default_slim, default_keep = default_patterns(network, cuttable, example)
    slim_patterns = default_slim if slim is None else slim
    keep_patterns = (*(default_keep if slim is None else ()), *(keep or ()))
    for option, patterns in (("--slim", slim_patterns), ("--keep", keep_patterns), ("alpha", by_alpha)):
        for pattern in patterns:
            _check_pattern(option, pattern, cuttable, network)
    # By default a depthwise layer, whose channels are its input's, does not make the group of a stage before it slim.
    layers = dict(network.named_modules())
    depthwise = {name for name in cuttable if slim is None and is_depthwise(layers[name])}
    chosen = []
    for group in groups:
        makers = [layer for layer in group.producers if layer not in depthwise]
        chosen.append(_matches(makers, slim_patterns) and not _matches(group.producers, keep_patterns))
    return SlimGroups(groups, tuple(chosen))


def plan_at(network: nn.Module, example: Tensor, groups: Sequence[ChannelGroup], kept: Sequence[int]) -> WidthPlan:
    """The plan that keeps the first `kept[i]` channels of `groups[i]`; tried out before it is returned."""
    widths = [
        GroupWidth(group.name, group.producers, group.channels, width, width, width < group.channels)
        for group, width in zip(groups, kept, strict=True)
    ]
    return _plan(network, example, groups, widths)


def plan_like(network: nn.Module, example: Tensor, plan: WidthPlan) -> WidthPlan:
    """The plan that gives every group of `network` the width that the group of that name has in `plan`.

    So widths found on one data set serve on another, whose classifier and image size may differ. A network with other groups
    raises an AdjCompressError.
    """
    groups = channel_groups(network, example)
    mine, theirs = ([(group.name, group.channels) for group in those] for those in (groups, plan.groups))
    if mine != theirs:
        differing = next((pair for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]), None)
        detail = f"{differing[1][0]} with {differing[1][1]} channels" if differing else f"{len(theirs)} channel groups"
        raise AdjCompressError(
            f"The width plan is for another network: it has {detail} where {type(network).__name__} has "
            f"{f'{differing[0][0]} with {differing[0][1]}' if differing else len(mine)}. Use it with the model it was made for."
        )
    for group, width in zip(groups, plan.groups, strict=True):
        if not 0 < width.kept <= group.channels or width.kept % group.quantum:
            raise AdjCompressError(
                f"The width plan keeps {width.kept} of the {group.channels} channels of {group.name}: "
                f"it must be a multiple of {group.quantum} and at most {group.channels}."
            )
    return _plan(network, example, groups, plan.groups)


def _plan(network: nn.Module, example: Tensor, groups: Sequence[ChannelGroup], widths: Sequence[GroupWidth]) -> WidthPlan:
    cuts, shapes = _cuts(network, groups, widths)
    _refuse_shared(network, cuts)
    plan = WidthPlan(tuple(widths), cuts, shapes)
    check_slices(network, plan, example)
    return plan


def _refuse_shared(network: nn.Module, cuts: Collection[str]) -> None:
    """Refuse to cut a weight that another layer has too."""
    for names in owners(network):
        if len(names) > 1 and any(name in cuts for name in names):
            raise AdjCompressError(
                f"{names[0]} and {names[1]} are one tensor, so neither layer can be cut alone: keep both whole with --keep, "
                "or give each a weight of its own."
            )


def check_align(align: int) -> None:
    """Refuse an alignment that is no number of channels."""
    if align < 1:
        raise AdjCompressError(f"--align {align} must be 1 or more: the kept channels are a multiple of it.")


def nothing_is_slim(network: nn.Module, found: SlimGroups) -> AdjCompressError:
    """The error of a network none of whose groups is slim."""
    cuttable = [layer for group in found.groups for layer in group.producers]
    return AdjCompressError(
        f"No layer of {type(network).__name__} is slim. Its layers that can be cut: {_summary(cuttable)}; "
        "choose with --slim and --keep."
    )


def default_patterns(network: nn.Module, cuttable: Sequence[str], example: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Patterns (slim, keep) where the user gives none: what the papers do [P1 section 5, appendix C].

    A network with stages layer1, layer2, ... is a ResNet: the stem (which may be called layer0) and the first stage keep their
    width. In others the layer keeps it that runs first, wherever it is declared.
    """
    found = (re.fullmatch(r"layer([1-9]\d*)", name) for name, _ in network.named_children())
    stages = sorted((stage for stage in found if stage), key=lambda stage: int(stage[1]))
    if len(stages) >= 2:
        return tuple(stage[0] for stage in stages[1:]), ()
    return ("*",), next(((name,) for name in layers_run(network, example) if name in cuttable), ())


def _matches(layers: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(named_by(layer, pattern) for layer in layers for pattern in patterns)


def named_by(layer: str, pattern: str) -> bool:
    """'layer3' names layer3 and all inside it; 'layer3.*' and other shell patterns work as usual."""
    return fnmatchcase(layer, pattern) or layer.startswith(f"{pattern}.")


def _check_pattern(option: str, pattern: str, cuttable: Sequence[str], network: nn.Module) -> None:
    if not any(named_by(layer, pattern) for layer in cuttable):
        kind = type(network).__name__
        raise AdjCompressError(
            f"{option} {pattern!r} matches no layer of {kind} that can be cut. "
            f"Its layers that can be cut: {_summary(cuttable, pattern)}."
        )


def _summary(layers: Sequence[str], pattern: str = "") -> str:
    """Layers by the first part of their name, with counts: "layer1 (4), layer2 (5)"."""
    counts: dict[str, int] = {}
    for layer in layers:
        parts = layer.split(".")
        first = ".".join(parts[:2]) if parts[0] == "features" else parts[0]
        counts[first] = counts.get(first, 0) + 1
    names = nearest_first(pattern, counts) if pattern and len(counts) > 12 else list(counts)
    return ", ".join(f"{name} ({counts[name]})" for name in names) or "none"


def _width(group: ChannelGroup, alpha: Alpha, align: int, is_slim: bool) -> GroupWidth:
    if isinstance(alpha, Mapping):
        wanted = next(
            (value for pattern, value in alpha.items() if any(named_by(layer, pattern) for layer in group.producers)),
            None,
        )
        is_slim = is_slim and wanted is not None
        value = wanted if wanted is not None else 1.0
    else:
        value = alpha
    if not value >= 1:
        raise AdjCompressError(f"--alpha {value:g} is below 1: alpha is the full width divided by the small width.")
    if not is_slim:
        return GroupWidth(group.name, group.producers, group.channels, group.channels, group.channels, False)
    if value > group.channels:
        raise AdjCompressError(
            f"--alpha {value:g} is above the width of layer {group.name}, which has {group.channels} channels: "
            f"choose a smaller alpha, or keep that layer whole with --keep '{group.name}'."
        )
    asked = group.channels / value
    return GroupWidth(group.name, group.producers, group.channels, aligned(group, asked, align), asked, True)


def aligned(group: ChannelGroup, asked: float, align: int) -> int:
    """The kept channels where `asked` are wanted: rounded up to a multiple of `align` and to whole convolution groups."""
    step = math.lcm(align, group.quantum)
    return min(group.channels, math.ceil(math.ceil(asked - 1e-9) / step) * step)


def _cuts(
    network: nn.Module, groups: Sequence[ChannelGroup], widths: Sequence[GroupWidth]
) -> tuple[dict[str, dict[int, tuple[Range, ...]]], dict[str, tuple[int, ...]]]:
    """Collect, by tensor and dimension, what all groups together leave."""
    tensors = tensors_of(network)
    lost: dict[tuple[str, int], set[int]] = {}
    for group, width in zip(groups, widths, strict=True):
        if width.kept == width.channels:
            continue
        for name, dim, axis in carriers(network, group):
            gone = {index for index, channel in zip(axis.index, axis.channel, strict=True) if channel >= width.kept}
            lost.setdefault((name, dim), set()).update(gone)
    cuts: dict[str, dict[int, tuple[Range, ...]]] = {}
    for (name, dim), gone in lost.items():
        cuts.setdefault(name, {})[dim] = _ranges([index for index in range(tensors[name].shape[dim]) if index not in gone])
    return cuts, {name: tuple(tensors[name].shape) for name in cuts}


def carriers(network: nn.Module, group: ChannelGroup) -> Iterator[tuple[str, int, Axis]]:
    """The tensors that lose entries when the group's channels go: name, dimension, and which positions hold which channel.

    One entry that all channels share, as the slope of a plain nn.PReLU is, stays.
    """
    modules = dict(network.named_modules())
    tensors = tensors_of(network)
    for axis in group.axes:
        if axis.layer in modules:
            places = [(f"{axis.layer}.{name}", dim) for name, dim in sliced_tensors(modules[axis.layer], axis.side)]
        else:  # a bare parameter, such as a layer scale (C, 1, 1): the last dimension above 1, as in the graph
            shape = tensors[axis.layer].shape
            places = [(axis.layer, dim) for dim, size in enumerate(shape) if size > 1][-1:]
        last = max(axis.index)
        yield from ((name, dim, axis) for name, dim in places if name in tensors and tensors[name].shape[dim] > last)


def _ranges(indices: Sequence[int]) -> tuple[Range, ...]:
    """Sorted indices as ranges: [0, 1, 2, 7, 8] -> ((0, 3), (7, 9))."""
    ranges: list[Range] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return tuple(ranges)
