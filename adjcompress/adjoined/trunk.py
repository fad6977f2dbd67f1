"""Which layers are computed once, for the full network and the small ones together?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.running import evaluating, watching
from adjcompress.widths.channels import Convolution
from adjcompress.widths.plan import WidthPlan


def outermost_before(full: nn.Module, plans: Collection[WidthPlan], example: Tensor) -> tuple[str, ...]:
    """What `trunk_of` gives, before it is tried out."""
    slim = {tensor.rpartition(".")[0] for plan in plans for tensor in plan.cuts}
    done: list[str] = []  # before the first slim layer
    after: list[str] = []  # the slim layer and what runs after it

    def enter(name: str) -> None:
        if after or (name in slim and name):  # a parameter of the network itself is read when it is: not when that begins
            after.append(name)

    def leave(name: str) -> None:
        if not after:
            done.append(name)

    hooks = []
    for name, module in full.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        hooks.append(module.register_forward_hook(lambda *_, name=name: leave(name)))
    try:
        with evaluating(full):
            full(example)
    finally:
        for hook in hooks:
            hook.remove()
    for name in after:
        if name in done and next(full.get_submodule(name).parameters(), None) is not None:
            raise AdjCompressError(f"--trunk shared: layer {name} runs before the first layer that is cut, and again after it.")
    inside = set(done)
    outermost = [name for name in done if name.rpartition(".")[0] not in inside]
    if not any(isinstance(module, Convolution) for name in outermost for module in full.get_submodule(name).modules()):
        raise AdjCompressError(
            f"--trunk shared: {type(full).__name__} has no trunk, for its first layer is cut already: keep it whole with "
            "--keep, or leave --trunk out."
        )
    return tuple(outermost)


def has_hooks(module: nn.Module) -> bool:
    """Whether something of the user's changes, or sees, what a module computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class SharedTrunk:
    """Computes the modules `names` once: what the first network that runs makes of them, the others take over.

    `names` has a module once for each time that it runs in the trunk; later it computes as usual.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.outputs: dict[str, list[Any]] = {}

    @contextmanager
    def kept_from(self, network: nn.Module) -> Iterator[None]:
        """Within the block what `network` makes of the modules is kept."""

        wanted = Counter(self.names)

        def keep(name: str, _input: Any, output: Any) -> None:
            outputs = self.outputs.setdefault(name, [])
            if len(outputs) < wanted[name]:
                outputs.append(output)

        with watching({name: network.get_submodule(name) for name in wanted}, keep):
            yield

    @contextmanager
    def reused_by(self, network: nn.Module, views: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the modules of `network` give what was kept; `views`, its tensors, are those of the first there."""
        layers = {name: network.get_submodule(name) for name in dict.fromkeys(self.names)}

        def taking(name: str, ordinary: Any) -> Any:
            waiting = list(self.outputs[name])
            return lambda *inputs, **named: waiting.pop(0) if waiting else ordinary(*inputs, **named)

        try:
            for name, layer in layers.items():
                layer.forward = taking(name, layer.forward)
            yield
        finally:
            for layer in layers.values():
                vars(layer).pop("forward", None)  # the class's own again


class FirstConvolution:
    """Computes the network's first convolution once for all networks: its input and weights are the same [P1 Eq. 1].

    While the full network runs, the output of the layer that sees the very `images` is kept; a small network whose layer
    of that name has the same weight takes it instead of computing it again.
    """

    def __init__(self, whole: Mapping[str, Tensor], images: Tensor) -> None:
        self.whole, self.images = whole, images
        self.name = ""
        self.output: Tensor | None = None
        self.version = 0

    @contextmanager
    def kept_from(self, full: nn.Module) -> Iterator[None]:
        """Within the block the output of the layer that sees the very images is kept."""

        def keep(name: str, images: Tensor, output: Tensor) -> None:
            if self.output is None and images is self.images and not output.is_inference():  # those do not tell of changes
                self.name, self.output, self.version = name, output, output._version

        convolutions = {name: module for name, module in full.named_modules() if isinstance(module, Convolution)}
        with watching(convolutions, keep):
            yield

    @contextmanager
    def reused_by(self, small: nn.Module, views: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the small network's first convolution gives what was computed, if it would compute the same."""
        weight = f"{self.name}.weight"
        if self.output is None or views.get(weight) is not self.whole[weight] or self.output._version != self.version:
            yield  # an activation may have overwritten the output in place
            return
        output, layer = self.output, small.get_submodule(self.name)
        if has_hooks(layer):
            yield  # they have seen the output already, and would again
            return
        ordinary = layer.forward

        def forward(*inputs: Any, **named: Any) -> Any:
            return output if inputs and inputs[0] is self.images else ordinary(*inputs, **named)

        layer.forward = forward
        try:
            yield
        finally:
            del layer.forward  # the class's own again
