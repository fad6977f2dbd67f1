"""On which devices, in which precision does training run?"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from adjcompress.errors import AdjCompressError, ToldElsewhere, check_choice, pick
from adjcompress.machine import usable_cores
from adjcompress.tensors import kinds

# float16 is left out: it needs a loss scale whose state would have to be kept, and bf16 needs none.
_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "64": "64-true"}


@dataclass(frozen=True)
class Hardware:
    """Where training runs. `device`: auto (CUDA where there is one), cpu or cuda. `precision`: 32, bf16 or 64.

    `devices` processes on each of `nodes` machines; under torchrun both come from it. `compile`: by torch.compile, in `train`
    and `resume`; `fit`, which takes what `launch` gives, is told by an argument of its own.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32"
    compile: bool = False


def launch(hardware: Hardware) -> Fabric:
    """A Lightning Fabric for this hardware, its processes started and connected."""
    check_choice(("auto", "cpu", "cuda"), hardware.device, "Device")
    precision = pick(_PRECISIONS, hardware.precision, "Precision")
    available = torch.cuda.device_count()
    if hardware.device == "cuda" and not available:
        raise AdjCompressError("--device cuda: this machine has no CUDA GPU that PyTorch can use; take --device cpu or auto.")
    use_cuda = available > 0 and hardware.device != "cpu"
    devices, nodes = hardware.devices, hardware.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    if devices < 1 or nodes < 1:
        raise AdjCompressError(f"--devices {devices} and --nodes {nodes} must be at least 1.")
    if use_cuda and devices > available:
        raise AdjCompressError(f"--devices {devices}: this machine has {available} CUDA GPUs.")
    if not use_cuda and devices > max(2, cores := len(usable_cores())):
        raise AdjCompressError(f"--devices {devices}: a process for each core is the most, and there are {cores}.")
    with _told_by_us():
        fabric = Fabric(
            accelerator="cuda" if use_cuda else "cpu",
            devices=devices,
            num_nodes=nodes,
            strategy=_Together(start_method="popen") if devices * nodes > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]
        )
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave)
    return fabric


@contextmanager
def _told_by_us() -> Iterator[None]:
    """Within the block Lightning does not repeat on standard error which precision was asked for."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """What the first process cannot do within the block is an error of all: none waits for one that has gone."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if fabric.world_size > 1:
        told = fabric.broadcast(None if failed is None else str(failed))
        if failed is None and told is not None:
            raise ToldElsewhere(told)
    if failed is not None:
        raise failed


def check_kind(network: nn.Module, precision: str) -> None:
    """Refuse a network whose parameters are of another kind than float32, in which, or in double precision, it is trained."""
    trained = {torch.float32, torch.float64} if precision == "64" else {torch.float32}
    if others := kinds(network) - trained:
        raise AdjCompressError(
            f"The network has parameters of {others.pop()}: train network.float(). In what a training computes is said by its "
            "hardware, Hardware(precision=...)."
        )


class _Together(DDPStrategy):
    """Processes that share a step's images, and do not wait for the gradients of what rests in it.

    Lightning takes DDP's arguments when it is made, before it is known what will be trained; here they follow the module.
    """

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        self._ddp_kwargs["find_unused_parameters"] = bool(getattr(module, "rests", False))
        return super().setup_module(module)


def _leave() -> None:
    """Leave the group of processes before the interpreter goes.

    A process that goes with gloo's threads still running is aborted in one of a few exits, after all its work is done, and
    the launcher of another machine then waits five minutes for it. NCCL is left alone: it cleans up itself, and a process
    that failed would wait here for the others.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def precision_name(fabric: Fabric) -> str:
    """The precision of a Fabric by our name for it: 32, bf16 or 64."""
    theirs = str(fabric.strategy.precision.precision)
    return next(name for name, value in _PRECISIONS.items() if value == theirs)
