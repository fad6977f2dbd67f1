"""Which channels of a network must be cut together?

A sum, a concatenation, a depthwise convolution or a squeeze-excitation ties channels of several layers: a channel group.
Groups are found from one example input through Torch-Pruning's dependency graph, here and nowhere else; the rest of the
project sees `ChannelGroup`, plain data in the full network's numbering.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from adjcompress.errors import AdjCompressError, first_line
from adjcompress.running import CANNOT_RUN
from adjcompress.tensors import copied_with

Side = Literal["in", "out"]
Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Axis:
    """One side of a layer that carries a group: position `index[k]` there holds the group's channel `channel[k]`."""

    layer: str
    side: Side
    index: tuple[int, ...]
    channel: tuple[int, ...]

    @property
    def places(self) -> dict[int, list[int]]:
        """The positions of every channel; after a flattening several."""
        found: dict[int, list[int]] = {}
        for index, channel in zip(self.index, self.channel, strict=True):
            found.setdefault(channel, []).append(index)
        return found


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together.

    `name` is that of the first layer that produces them, with a number behind it where that produces several; `producers` are
    all convolutions and linear layers that do. `segments`: the channels can only be cut in that many equal pieces (groups of a
    grouped convolution or group norm).
    """

    name: str
    channels: int
    segments: int
    producers: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def quantum(self) -> int:
        """The kept channels must be a multiple of this."""
        return self.channels // self.segments


@dataclass
class _Draft:
    """A group while it is being found: (layer, side) -> {index there: channel}."""

    channels: int
    segments: int
    axes: dict[tuple[str, Side], dict[int, int]] = field(default_factory=dict)
    fixed: bool = False


def channel_groups(network: nn.Module, example: Tensor) -> tuple[ChannelGroup, ...]:
    """The channel groups of a CNN, in the order of its layers; those that reach the output are left out.

    `example` is a batch (N, C, H, W) that the network takes. The network is left as it was. What cannot be cut (attention,
    a channel shuffle, recurrent layers, weights that are made of others) raises an AdjCompressError that names the layer and
    the reason.
    """
    traced = copied_with(network, dict(network.named_parameters())).eval().requires_grad_(True)  # on the same memory
    outputs = _refuse_what_cannot_be_cut(traced, example)
    modules = dict(traced.named_modules())
    with _cycles_freed():  # the graph is full of them and holds a copy of the network with its activations
        drafts = [part for draft in _dependency_graph(traced, example) for part in _sections(draft)]
    for draft in drafts:
        draft.fixed |= any((name, "out") in draft.axes for name in outputs)
    for name, module in modules.items():
        if isinstance(module, Convolution) and module.groups > 1 and not is_depthwise(module):
            drafts = _tied_by_grouped_convolution(drafts, name, module)
        elif isinstance(module, nn.GroupNorm):
            _tied_by_group_norm(drafts, name, module)
    position = {name: index for index, name in enumerate(modules)}
    groups = [_finished(draft, modules) for draft in drafts if not draft.fixed]
    found = sorted((group for group in groups if group.producers), key=lambda group: position[group.name])
    _refuse_made_weights(found, modules)
    return _named_apart(found)


def _refuse_made_weights(groups: Sequence[ChannelGroup], modules: Mapping[str, nn.Module]) -> None:
    """A weight that is computed from other parameters, as under weight norm, has no entries that could be cut."""
    for name in dict.fromkeys(axis.layer for group in groups for axis in group.axes):
        module = modules.get(name)
        if isinstance(module, (*Convolution, nn.Linear)) and "weight" not in dict(module.named_parameters(recurse=False)):
            raise AdjCompressError(
                f"Layer {name} makes its weight from other parameters, so its channels cannot be cut. Make it a plain one "
                "first, as with torch.nn.utils.parametrize.remove_parametrizations."
            )


def _named_apart(groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """Groups whose names differ: a layer whose outputs are split produces two, "stem" and "stem#2"."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        named.append(group if number == 1 else replace(group, name=f"{group.name}#{number}"))
    return tuple(named)


def is_depthwise(module: nn.Module) -> bool:
    """A convolution in which every channel is its own group."""
    return isinstance(module, Convolution) and module.groups == module.in_channels == module.out_channels > 1


def is_selection(module: nn.Module) -> bool:
    """A layer without weights whose outputs are some of its inputs: its buffer `selection` is (outputs, inputs)."""
    return isinstance(getattr(module, "selection", None), Tensor)


def sliced_tensors(module: nn.Module, side: Side) -> tuple[tuple[str, int], ...]:
    """The tensors of a layer that lose entries when channels of one side go, each with its dimension."""
    if isinstance(module, Convolution):
        if side == "out" or is_depthwise(module):
            return (("weight", 0), ("bias", 0))
        return (("weight", 1),) if module.groups == 1 else ()  # whole groups go: their inputs leave with their outputs
    if isinstance(module, nn.Linear):
        return (("weight", 0), ("bias", 0)) if side == "out" else (("weight", 1),)
    if isinstance(module, BatchNorm):
        return (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0))
    if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.PReLU):
        return (("weight", 0), ("bias", 0))
    if is_selection(module):
        return (("selection", 0 if side == "out" else 1),)
    return ()


# --- through Torch-Pruning ------------------------------------------------------------------------------------------


def selection_pruners(network: nn.Module) -> dict[type[nn.Module], Any]:
    """For Torch-Pruning: the layers of `network` that pick channels without weights; their sides are numbered apart."""
    import torch_pruning

    class Selection(torch_pruning.BasePruningFunc):
        """Tells the dependency graph that the two sides of a selection are numbered apart, as a convolution's are."""

        def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            return layer

        def prune_in_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return layer.selection.shape[0]

        def get_in_channels(self, layer: Any) -> int:
            return layer.selection.shape[1]

    return {type(module): Selection() for module in network.modules() if is_selection(module)}


def _dependency_graph(network: nn.Module, example: Tensor) -> Iterator[_Draft]:
    """Enumerate the groups of the uncut network once, with the index of every channel wherever it appears."""
    import torch_pruning

    selections = selection_pruners(network)
    names: dict[Any, str] = {module: name for name, module in network.named_modules()}
    names |= {parameter: name for name, parameter in network.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(network, example, customized_pruners=selections, verbose=False)
        roots = (*Convolution, nn.Linear, *selections)
        for group in graph.get_all_groups(root_module_types=roots):
            draft = _Draft(len(group[0].idxs), len(group[0].idxs))
            for item in group:
                target = item.dep.target.module
                if type(target).__name__ == "_OutputOp":
                    draft.fixed = True
                if target not in names:
                    continue  # an operation without tensors: sum, concatenation, activation
                side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
                if not isinstance(target, roots):
                    side = "out"  # norms and bare parameters have one side
                positions = draft.axes.setdefault((names[target], side), {})
                for index, channel in zip(item.idxs, item.root_idxs, strict=True):
                    positions[index] = channel
            yield draft


@contextmanager
def _cycles_freed() -> Iterator[None]:
    """At the end of the block, free what was made in it and hangs in cycles.

    What was there before is not searched: in a process that has imported ONNX that alone took half a second.
    """
    young = gc.get_freeze_count() == 0  # else somebody keeps objects frozen, which only they may thaw
    if young:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if young:
            gc.unfreeze()


def _sections(draft: _Draft) -> list[_Draft]:
    """Split a group into the channels that touch the same layers: where a concatenation is summed, only a part is tied."""
    touched: dict[int, set[tuple[str, Side]]] = {channel: set() for channel in range(draft.channels)}
    for key, positions in draft.axes.items():
        for channel in positions.values():
            touched[channel].add(key)
    members: dict[frozenset[tuple[str, Side]], list[int]] = {}
    for channel, keys in touched.items():
        members.setdefault(frozenset(keys), []).append(channel)
    if len(members) == 1:
        return [draft]
    parts = []
    for together, channels in members.items():
        number = {channel: position for position, channel in enumerate(channels)}
        part = _Draft(len(channels), len(channels), fixed=draft.fixed)
        for key in together:
            part.axes[key] = {index: number[channel] for index, channel in draft.axes[key].items() if channel in number}
        parts.append(part)
    return parts


def _tied_by_grouped_convolution(drafts: list[_Draft], name: str, module: Any) -> list[_Draft]:
    """Join the groups on both sides of a grouped convolution: they are cut in whole convolution groups."""
    before = [draft for draft in drafts if (name, "in") in draft.axes]
    after = [draft for draft in drafts if (name, "out") in draft.axes]
    whole = (
        len(before) == len(after) == 1
        and not before[0].fixed
        and not after[0].fixed
        and _covers(before[0], (name, "in"), module.in_channels)
        and _covers(after[0], (name, "out"), module.out_channels)
    )
    if not whole:
        for draft in (*before, *after):
            draft.fixed = True
        return drafts
    first, second = sorted((before[0], after[0]), key=lambda draft: -draft.channels)  # the finer numbering stays
    segments = math.gcd(first.segments, second.segments, module.groups)
    first.segments = segments
    if second is not first:
        for key, positions in second.axes.items():
            in_first = first.axes.setdefault(key, {})
            for index, channel in positions.items():
                in_first[index] = channel * segments // second.channels * (first.channels // segments)
        drafts = [draft for draft in drafts if draft is not second]
    return drafts


def _tied_by_group_norm(drafts: list[_Draft], name: str, module: nn.GroupNorm) -> None:
    for draft in drafts:
        if (name, "out") in draft.axes:
            draft.segments = math.gcd(draft.segments, module.num_groups)
            draft.fixed |= not _covers(draft, (name, "out"), module.num_channels)


def _covers(draft: _Draft, key: tuple[str, Side], size: int) -> bool:
    """Whether the axis holds exactly the group's channels, in order, or at least its segments."""
    positions, segments = draft.axes[key], draft.segments
    if positions.keys() != set(range(size)) or size % segments:
        return False
    return all(index * segments // size == channel * segments // draft.channels for index, channel in positions.items())


def _finished(draft: _Draft, modules: Mapping[str, nn.Module]) -> ChannelGroup:
    position = {name: index for index, name in enumerate(modules)}
    ordered = sorted(draft.axes, key=lambda key: (position.get(key[0], len(position)), key))
    axes = []
    for layer, side in ordered:
        positions = sorted(draft.axes[layer, side].items())
        axes.append(Axis(layer, side, tuple(index for index, _ in positions), tuple(c for _, c in positions)))
    producers = tuple(
        layer for layer, side in ordered if side == "out" and isinstance(modules.get(layer), (*Convolution, nn.Linear))
    )
    return ChannelGroup(producers[0] if producers else "", draft.channels, draft.segments, producers, tuple(axes))


# --- what no channel group can describe -----------------------------------------------------------------------------

_WHOLE_LAYERS: dict[type[nn.Module], str] = {
    nn.MultiheadAttention: "attention mixes all its channels in heads",
    nn.RNNBase: "a recurrent layer keeps its width over time",
    nn.Embedding: "an embedding is no convolution",
    nn.ConvTranspose1d: "transposed convolutions are not supported",
    nn.ConvTranspose2d: "transposed convolutions are not supported",
    nn.ConvTranspose3d: "transposed convolutions are not supported",
}
_MIXING_FUNCTIONS = {
    "scaled_dot_product_attention": "attention mixes all its channels in heads",
    "channel_shuffle": "a channel shuffle interleaves channels",
    "pixel_shuffle": "a pixel shuffle turns channels into pixels",
    "roll": "a rolled window is no convolution",
}
_PRODUCTS = ("matmul", "bmm", "einsum", "__matmul__")


class _Watch(TorchFunctionMode):
    """Reads every tensor function of a forward pass, and refuses those that no channel group can describe."""

    def __init__(self, running: list[str], parameters: set[int]) -> None:
        super().__init__()
        self.running, self.parameters = running, parameters

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = (resolve_name(func) or "").rpartition(".")[2]
        reason = _MIXING_FUNCTIONS.get(name)
        if name in _PRODUCTS and not any(id(operand) in self.parameters for operand in args):
            reason = "it multiplies two activations as matrices"
        if name in ("view", "reshape", "unflatten") and isinstance(result, Tensor) and result.ndim > args[0].ndim >= 4:
            shapes = f"{tuple(args[0].shape)} to {tuple(result.shape)}"
            reason = f"it reshapes {shapes}, which splits channels (a channel shuffle, or windows of attention)"
        if reason:
            layer = self.running[-1] if self.running else ""
            raise AdjCompressError(f"Layer {layer or 'the network itself'} cannot be cut: {reason}.")
        return result


def _refuse_what_cannot_be_cut(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Run the network once, watched; return the names of the modules whose output is the network's."""
    for name, module in network.named_modules():
        for kind, reason in _WHOLE_LAYERS.items():
            if isinstance(module, kind):
                raise AdjCompressError(f"Layer {name} ({type(module).__name__}) cannot be cut: {reason}.")
        if isinstance(own := getattr(module, "cannot_be_cut", None), str):
            raise AdjCompressError(f"Layer {name} ({type(module).__name__}) cannot be cut: {own}.")
    results: dict[str, Any] = {}
    with running_modules(network, results) as running, torch.no_grad():
        parameters = {id(parameter) for parameter in network.parameters()}
        try:
            with _Watch(running, parameters):
                logits = network(example)
        except CANNOT_RUN as error:
            raise AdjCompressError(
                f"The network does not take an image batch of shape {tuple(example.shape)}: "
                f"{running[-1] if running else 'its forward'}: {first_line(error)}."
            ) from error
    if not isinstance(logits, Tensor):
        raise AdjCompressError(f"The network gives a {type(logits).__name__}; a tensor of logits (N, classes) is expected.")
    return tuple(name for name, result in results.items() if result is logits)


@contextmanager
def running_modules(network: nn.Module, results: dict[str, Any] | None = None) -> Iterator[list[str]]:
    """Names of the modules that are running, outermost first, while the network runs; after an error, where it was.

    `results`, if given, receives each module's last output.
    """
    running: list[str] = []
    hooks = []
    for name, module in network.named_modules():

        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            running.append(name)

        def leave(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            running.pop()
            if results is not None:
                results[name] = output

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
