"""Which network does a name stand for?

Three kinds of name: one of ours or of torchvision ("xresnet50", "resnet50"), "timm:NAME" where timm is installed, and
"package.module:function" for a network of the user's own.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn
from torchvision import models as torchvision_models

from adjcompress.errors import AdjCompressError, check_choice, first_line
from adjcompress.models import cifar_resnet, darts, fabrics, xresnet
from adjcompress.models.graph import GraphNetwork
from adjcompress.models.wide_resnet import wide_resnet
from adjcompress.running import CANNOT_RUN, evaluating

_OURS: dict[str, Callable[..., nn.Module]] = {
    "xresnet18": xresnet.xresnet18,
    "xresnet34": xresnet.xresnet34,
    "xresnet50": xresnet.xresnet50,
    "xresnet50x2": xresnet.xresnet50x2,
    "xresnet101": xresnet.xresnet101,
    "xresnet152": xresnet.xresnet152,
    "cifar_resnet20": cifar_resnet.cifar_resnet20,
    "cifar_resnet32": cifar_resnet.cifar_resnet32,
    "cifar_resnet44": cifar_resnet.cifar_resnet44,
    "cifar_resnet56": cifar_resnet.cifar_resnet56,
    "cifar_resnet110": cifar_resnet.cifar_resnet110,
    "darts": darts.darts,
    "wrn_50_2": torchvision_models.wide_resnet50_2,
    "resnet_fabric": fabrics.resnet_fabric,
    "neural_fabric": fabrics.neural_fabric,
}
_WIDE_RESNETS = ("wrn_16_2", "wrn_28_10", "wrn_40_4")  # of any depth and width, these to choose from
# The auxiliary classifiers of these two exist in training only and have widths of their own: left out unless asked for.
_WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
_TORCHVISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "googlenet": _WITHOUT_AUXILIARY,
    "inception_v3": _WITHOUT_AUXILIARY,
}


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a network again: its name and arguments. Plain data, kept in runs and packages."""

    name: str
    num_classes: int
    image_size: int = 224
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """A new network with fresh weights, (N, 3, image_size, image_size) -> (N, num_classes)."""
        for option in self.options.keys() & {"name", "num_classes", "image_size"}:
            raise AdjCompressError(f"--model-option {option}: the data and --model say that already; leave it out.")
        return create_model(self.name, self.num_classes, self.image_size, **self.options)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        return cls(**data)


def model_names() -> list[str]:
    """The names that need no prefix: ours first, then torchvision's classification networks."""
    return [*_OURS, *_WIDE_RESNETS, *torchvision_models.list_models(module=torchvision_models)]


def create_model(name: str, num_classes: int, image_size: int = 224, **options: Any) -> nn.Module:
    """Build a network by its name, with fresh weights.

    `options` go to the network's constructor as they are, but for `nodes`: of a network that is a graph of layers, the
    architecture of the nodes named. `image_size` in pixels goes to a user's function if that takes it; no convolutional network
    of torchvision needs it. Unknown names raise an AdjCompressError with the nearest ones.
    """
    if num_classes < 1:
        raise AdjCompressError(f"A network needs at least 1 class, not {num_classes}.")
    if "nodes" in options:
        nodes = options.pop("nodes")
        if not isinstance(nodes, list | tuple) or not all(isinstance(node, str) for node in nodes):
            raise AdjCompressError(f"Model {name}: nodes are the names of an architecture's layers, not {nodes!r}.")
        whole = create_model(name, num_classes, image_size, **options)
        if not isinstance(whole, GraphNetwork):
            raise AdjCompressError(f"Model {name} is no graph of layers, so it has no nodes to choose: leave nodes out.")
        try:
            return whole.restricted(nodes)
        except AdjCompressError as error:
            raise AdjCompressError(f"Model {name} with these options has no such architecture: {error}") from error
    if name.startswith("timm:"):
        return _timm(name, num_classes, options)
    if ":" in name:
        return _users_own(name, num_classes, image_size, options)
    if name not in _OURS and name.startswith("wrn_"):
        return _call(name, wide_resnet, {"name": name, "num_classes": num_classes, **options})
    try:
        check_choice(model_names(), name, "Model")
    except AdjCompressError as error:
        raise AdjCompressError(f"{error} Or timm:NAME, or package.module:function of your own.") from None
    if name in _OURS:
        return _call(name, _OURS[name], {"num_classes": num_classes, **options})
    arguments = {**_TORCHVISION_DEFAULTS.get(name, {}), **options, "num_classes": num_classes}
    return _call_library(name, torchvision_models.get_model_builder(name), arguments)


def takes_option(name: str, option: str) -> bool:
    """Whether the constructor behind a name, of ours or of the user's own, has an argument called `option`."""
    if name in _OURS:
        function: Any = _OURS[name]
    elif ":" in name and not name.startswith("timm:"):
        function = _users_function(name)
    else:
        return False
    return option in inspect.signature(function).parameters


def _timm(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise AdjCompressError(f"{name} needs timm, which is not installed: pip install timm.") from None
    wanted = name.removeprefix("timm:")
    if not timm.is_model(wanted):
        near = difflib.get_close_matches(wanted, timm.list_models(), 12, 0.5)
        some = f"Near it: {', '.join(near)}." if near else "timm.list_models() names them."
        raise AdjCompressError(f"timm's model {wanted!r} is unknown. {some}")
    return _call_library(name, timm.create_model, {"model_name": wanted, "num_classes": num_classes, **options})


def _users_own(name: str, num_classes: int, image_size: int, options: Mapping[str, Any]) -> nn.Module:
    function = _users_function(name)
    arguments = {"num_classes": num_classes, "image_size": image_size, **options}
    taken = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        arguments = {key: value for key, value in arguments.items() if key in taken or key in options}
    return _call(name, function, arguments)


def _users_function(name: str) -> Callable[..., Any]:
    """What "package.module:function" names: a class or function that builds networks."""
    module_name, _, function_name = name.partition(":")
    if not module_name or module_name.startswith("."):  # which nothing is imported by
        raise AdjCompressError(f"Model {name}: package.module:function is expected.")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise AdjCompressError(f"Model {name}: {module_name} is a module of Python itself, which builds no networks.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise AdjCompressError(
            f"Model {name} needs the Python module {error.name}, which cannot be imported here: "
            "run in the folder that holds it, or install it, or add its folder to PYTHONPATH."
        ) from None
    function = getattr(module, function_name, None)
    if function is None:
        raise AdjCompressError(f"Model {name}: module {module_name} has no function {function_name!r}.")
    if not _builds_networks(function):
        raise AdjCompressError(
            f"Model {name} is neither a torch.nn.Module class nor a function annotated to return one: write "
            f"'def {function_name}(...) -> torch.nn.Module'. Packages name it, and nothing else may be called by a file."
        )
    found: Callable[..., Any] = function
    return found


def _builds_networks(function: Any) -> bool:
    """Whether a callable says that it makes a torch.nn.Module: a name in somebody's file must not call anything else."""
    if isinstance(function, type):
        return issubclass(function, nn.Module)
    try:
        made = typing.get_type_hints(function).get("return")
    except (TypeError, NameError):
        return False
    return isinstance(made, type) and issubclass(made, nn.Module)


def _call(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise AdjCompressError(f"Model {name} does not take these arguments: {error}.") from error
    return function(**arguments)


def _call_library(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    """Call a library's constructor, which may refuse options behind its **kwargs."""
    try:
        return _call(name, function, arguments)
    except (TypeError, ValueError) as error:
        raise AdjCompressError(f"Model {name} does not take these arguments: {first_line(error)}.") from error


def check_takes(
    network: nn.Module, example: Tensor, name: str, classes: int | None = None, per_pixel: tuple[int, ...] | None = ()
) -> None:
    """Run a network once on an image batch (N, C, H, W), in evaluation and in training mode; the network is left as it was.

    One that cannot take its size, or gives no logits, (N, classes, *per_pixel), is refused; `classes` None: of any number,
    `per_pixel` None: of any shape.
    """
    try:
        with evaluating(network):
            network(example)
            trained = copy.deepcopy(network).train()(example[:1].repeat(2, 1, 1, 1))  # what exists in training only as well
    except CANNOT_RUN as error:
        size = "x".join(str(side) for side in example.shape[-2:])
        raise AdjCompressError(
            f"Model {name} does not take {size} images ({first_line(error)}): choose another --image-size."
        ) from error
    if not isinstance(trained, Tensor | darts.WithAuxiliary):
        raise AdjCompressError(
            f"Model {name} gives {type(trained).__name__} in training, where logits (N, classes) are expected: leave auxiliary "
            "classifiers out."
        )
    _, *outputs = (trained if isinstance(trained, Tensor) else trained.logits).shape
    if not outputs:
        raise AdjCompressError(f"Model {name} gives one number for each image, where logits (N, classes) are expected.")
    if classes is not None and outputs[0] != classes:
        raise AdjCompressError(
            f"Model {name} gives {outputs[0]} logits for each image, and the data has {classes} classes: let its function take "
            "num_classes, or say by --model-option how many it is to give."
        )
    shape = tuple(outputs[1:])
    if per_pixel is not None and shape != per_pixel:
        wanted = "a class for every pixel" if per_pixel else "one class for every image"
        raise AdjCompressError(
            f"Model {name} gives logits (N, classes{''.join(f', {side}' for side in shape)}), and the data asks for {wanted}: "
            + ("take neural_fabric, or a function of your own." if per_pixel else "take a network that classifies.")
        )
