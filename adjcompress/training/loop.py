"""How is a network trained?"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from adjcompress.data import ImageData, Split, TrainingBatches, augmentation
from adjcompress.errors import AdjCompressError
from adjcompress.machine import emulates_bf16, machine_facts
from adjcompress.methods import Method
from adjcompress.models import ModelSpec
from adjcompress.seeds import derived_seed
from adjcompress.training.batch_norm import synchronised_batch_norm
from adjcompress.training.checkpoint import (
    AVERAGE,
    Checkpoint,
    Found,
    Position,
    checkpoints,
    load_optimizers_,
    newest_checkpoint,
    optimizer_tensors,
    remove_after,
    save_checkpoint,
    under,
)
from adjcompress.training.checks import check_loss, check_training, check_weights
from adjcompress.training.evaluation import Evaluation, evaluate_split
from adjcompress.training.events import Events
from adjcompress.training.hardware import Hardware, check_kind, launch, precision_name, together
from adjcompress.training.memory_order import channels_last
from adjcompress.training.meter import Meter
from adjcompress.training.pictures import write_pictures
from adjcompress.training.recipes import Recipe, fill_second_moments_, hand_over_, make_optimizers, set_rates_
from adjcompress.training.reporter import Reporter, StepNews
from adjcompress.training.run import FORMAT, Run, held, open_run, read_log, start_run, write_log, write_results
from adjcompress.version import versions


def fit(
    method: Method,
    data: ImageData,
    recipe: Recipe,
    run: str | Path,
    *,
    model: ModelSpec | None = None,
    seed: int = 0,
    resume: bool = False,
    fabric: Fabric | None = None,
    reporter: Reporter | None = None,
    compile: bool = False,
    checkpoint_minutes: float = 5.0,
    notes: Mapping[str, Any] | None = None,
    phase_of: Path | None = None,
) -> Run:
    """Train `method` on `data` by `recipe`, in folder `run`; return the run. `method.network` ends up trained.

    `model` is kept in the run so that its networks can be built again from it. With `resume` the training goes on from
    the newest whole checkpoint, and ends with the weights it would have had without interruption, to the last bit on one
    CPU. Checkpoints are written after each epoch, and within one every `checkpoint_minutes`. `seed`: of the images' order,
    their augmentation and what the method draws. `fabric`: the hardware, from `launch`; by default one device; with `compile`
    the network goes through torch.compile. `reporter` hears of every step and epoch. `notes` is kept in config.json as it is.
    `phase_of`: the run that this training only prepares; `runs/latest` points there, and the test split is not looked at. A
    loss that is not finite, a run that exists already and a full disk are AdjCompressErrors.
    """
    fabric = fabric or launch(Hardware())
    with together(fabric):
        if fabric.is_global_zero:
            check_kind(method.network, precision_name(fabric))
            check_training(method, data, recipe, fabric.world_size)
    folder = Path(fabric.broadcast(str(run)))
    found = newest_checkpoint(folder) if resume else None
    fabric.barrier()  # every process has looked before one writes
    with ExitStack() as stack:
        with together(fabric):
            if fabric.is_global_zero:
                config = _config(method, data, recipe, model, seed, fabric) | {"compile": compile, "notes": notes}
                start_run(folder, resume, config, phase_of or folder)
                stack.enter_context(held(folder))
                if resume and found is None:
                    raise AdjCompressError(
                        f"{folder} was stopped before it kept what it starts from: remove {folder / 'config.json'} and train "
                        "it again."
                    )
        reporter = reporter if reporter is not None and fabric.is_global_zero else Reporter()
        _warn(method, fabric, reporter)
        stack.enter_context(synchronised_batch_norm(method.network, fabric.world_size))
        stack.enter_context(warnings.catch_warnings())
        # DDP's complaint of 1x1 convolutions, whose weights lie in both memory orders at once and their gradients in one
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        training = _Training(method, data, recipe, folder, seed, fabric, reporter, compile, checkpoint_minutes)
        training.go_on_from(found)
        training.run()
        training.finish(tested=phase_of is None)
    fabric.barrier()  # what one process wrote is there for all
    return open_run(folder)


def _warn(method: Method, fabric: Fabric, reporter: Reporter) -> None:
    if precision_name(fabric) == "bf16" and fabric.device.type == "cpu" and emulates_bf16():
        reporter.warn("This CPU has no instructions for bf16 and emulates it, which is far slower: take --precision 32.")
    if (doubt := method.doubt()) is not None:
        reporter.warn(doubt)


class _Training:
    """One training: its parts, and the loop over epochs and steps."""

    def __init__(
        self,
        method: Method,
        data: ImageData,
        recipe: Recipe,
        folder: Path,
        seed: int,
        fabric: Fabric,
        reporter: Reporter,
        compile: bool,
        checkpoint_minutes: float,
    ) -> None:
        self.method, self.data, self.recipe, self.folder, self.seed = method, data, recipe, folder, seed
        self.fabric, self.reporter, self.checkpoint_minutes = fabric, reporter, checkpoint_minutes
        self.network = method.network
        self.network.to(fabric.device)
        self.channels_last = channels_last(self.network, fabric)
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.augment = augmentation(recipe.augmentation, data)
        self.batches = TrainingBatches(
            data.train,
            self.augment.file(data.preprocessing),
            recipe.batch_size,
            seed,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
            halves_after=method.halves_after,
            epochs=recipe.epochs,
        )
        groups = method.parameter_groups(recipe.weight_decay)  # first: they may be new ones, of which the set-up must know
        self.step_loss = fabric.setup_module(_StepLoss(method))
        self.average: AveragedModel | None = None
        if recipe.ema:  # after the set-up, which may change the weights' type
            self.average = AveragedModel(self.network, multi_avg_fn=_moving_average(recipe.ema), use_buffers=True)
        if compile:
            self.network.compile()
        steps = recipe.epochs * self.batches.steps
        optimizers = make_optimizers(groups, recipe, steps)
        self.optimizers = [_set_up(fabric, optimizer) for optimizer in optimizers]
        self.recipes_own = self.optimizers[0].optimizer  # the others keep their rates
        self.start = Position()

    def go_on_from(self, found: Found | None) -> None:
        """Take over a checkpoint: weights, optimiser, averaged weights and position."""
        if found is None:
            return
        checkpoint = found.checkpoint
        self.start = checkpoint.position
        self.network.load_state_dict(checkpoint.weights)
        load_optimizers_([each.optimizer for each in self.optimizers], checkpoint.training)
        if self.average:
            self.average.load_state_dict(under(AVERAGE, checkpoint.training))
        for damage in found.damaged:
            self.reporter.warn(f"{damage} Going on from {found.folder.name} instead.")
        if self.fabric.is_global_zero:
            remove_after(self.folder, found.folder)

    def run(self) -> None:
        """Train the epochs that are left; evaluate on validation after each."""
        self.began = time.monotonic() - self.start.seconds
        self.saved = time.monotonic()
        if not checkpoints(self.folder):
            self._save(self.start)  # what it starts from: seeds alone do not tell, where weights were given
        self.reporter.started(str(self.folder), self.recipe, self.start.epoch)
        events = Events(self.folder, self.start.epoch) if self.fabric.is_global_zero else None
        for epoch in range(self.start.epoch, self.recipe.epochs):
            train = self._epoch(epoch)
            done = Position(epoch + 1, 0, time.monotonic() - self.began)
            check_weights(self.network, done, self.folder)
            with _averaged(self.method, self.average):
                waiting = self.method.waiting(self._progress(done.epoch * self.batches.steps - 1))
                validation = self._evaluate(self.data.validation, self.fabric.autocast, waiting)
                recorded = self.method.record()
            record = {
                "epoch": epoch + 1,
                "lr": self.recipe.lr_at(epoch / self.recipe.epochs),
                "seconds": round(done.seconds, 3),
                "train": train,
                "validation": {name: score.to_json() for name, score in validation.items()},
                **recorded,
            }
            if self.fabric.is_global_zero:
                write_log(self.folder, [*read_log(self.folder)[:epoch], record])
            if events:
                events.epoch(record)
            self._save(done)
            self.reporter.epoch(record)
        if events:
            events.close()
        if self.average:
            self.network.load_state_dict(self.average.module.state_dict())

    def finish(self, tested: bool) -> None:
        """Write results.json; with `tested` look at the test split, once, with the last weights and in full precision."""
        results: dict[str, Any] = {"epochs": self.recipe.epochs, "seconds": round(time.monotonic() - self.began, 3)}
        if tested:
            scores = self._evaluate(self.data.test, nullcontext)
            results["test"] = {name: score.to_json() for name, score in scores.items()}
            if self.data.segmentation and self.fabric.is_global_zero:
                write_pictures(self.folder, self.method.deployables(), self.data)
        if (doubt := self.method.doubt()) is not None:
            results["doubt"] = doubt
        if (shortcoming := self.method.shortcoming()) is not None:
            results["shortcoming"] = shortcoming
            self.reporter.warn(shortcoming)
        if self.fabric.is_global_zero:
            write_results(self.folder, results)
        self.reporter.finished(results)

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, from where it was left; return the means of its losses and the images per second."""
        first = self.start.step if epoch == self.start.epoch else 0
        meter = Meter(self.start.sums if first else {}, self.fabric.is_global_zero)
        steps, world = self.batches.steps, self.fabric.world_size
        began, images, loss = time.monotonic(), 0, None
        self.network.train()
        for step, (pixels, labels) in enumerate(self.batches.epoch(epoch, first), first):
            done = epoch * steps + step
            progress = self._progress(done)
            torch.manual_seed(derived_seed("step", self.seed, done, self.fabric.global_rank))  # resumed or not: the same draws
            if done and self.method.waiting(self._progress(done - 1)) != self.method.waiting(progress):
                self._begin_(progress)
            set_rates_(self.recipes_own, self.recipe, progress)
            terms = self.step_loss(*self._shown(pixels, labels), progress)
            check_loss(loss, epoch, step - 1, self.folder)  # one step late, so that a GPU is not waited for
            loss = terms["loss"].detach()
            self.fabric.backward(terms["loss"] * self._share(labels).to(terms["loss"]) if world > 1 else terms["loss"])
            if self.recipe.clip_norm:
                norm = self.recipe.clip_norm
                self.fabric.clip_gradients(self.step_loss, self.optimizers[0], max_norm=norm, error_if_nonfinite=False)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if self.average:
                self.average.update_parameters(self.network)

            meter.add(terms, len(labels))
            images += len(labels) * world
            rate = images / (time.monotonic() - began)
            left = (self.recipe.epochs * len(self.data.train) - done * len(labels) * world) / rate
            self.reporter.step(StepNews(epoch, self.recipe.epochs, step + 1, steps, meter.latest, rate, max(left, 0.0)))
            if time.monotonic() - self.saved > 60 * self.checkpoint_minutes and step + 1 < steps:
                check_loss(loss, epoch, step, self.folder)
                self._save(Position(epoch, step + 1, time.monotonic() - self.began, meter.sums()))
        check_loss(loss, epoch, steps - 1, self.folder)
        return {**meter.means(self.fabric), "images_per_second": round(images / (time.monotonic() - began), 1)}

    def _begin_(self, progress: float) -> None:
        """Before the step in which a network begins to learn: what was kept of its entries says nothing of them."""
        hand_over_(self.recipes_own, self.method.successions(progress))
        fill_second_moments_(self.recipes_own)
        if self.average:
            self.average.n_averaged.zero_()

    def _shown(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels as the network sees them in training: augmented, normalised, in its memory layout; and its targets."""
        pixels, labels = self.augment(pixels.float(), labels)
        images = self.data.preprocessing.normalise(pixels)
        if self.recipe.mixup:
            images, labels = v2.MixUp(alpha=self.recipe.mixup, num_classes=len(self.data.classes))(images, labels)
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=order), self._targets(labels)

    def _share(self, labels: Tensor) -> Tensor:
        """What a process multiplies its mean loss by, so that the mean over all is that over the step's images.

        They may be shared unequally; so may pixels with a label, by which a segmentation goes.
        """
        counted = (labels >= 0).sum() if labels.ndim == 3 else torch.tensor(len(labels), device=labels.device)
        total = self.fabric.all_reduce(counted.double(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return counted * self.fabric.world_size / total.clamp(min=1)

    def _targets(self, labels: Tensor) -> Tensor:
        """Labels (N,) or (N, H, W), or, mixed or smoothed, probabilities (N, classes)."""
        smoothing, classes = self.recipe.label_smoothing, len(self.data.classes)
        if not smoothing:
            return labels
        chosen = labels if labels.is_floating_point() else F.one_hot(labels, classes)
        return chosen * (1 - smoothing) + smoothing / classes

    def _progress(self, step: int) -> float:
        """Which part of the training has passed when `step` begins, counted over all epochs."""
        return step / (self.recipe.epochs * self.batches.steps)

    def _evaluate(self, split: Split, autocast: Any, without: Collection[str] = ()) -> dict[str, Evaluation]:
        networks = {name: network for name, network in self.method.deployables().items() if name not in without}
        place = (self.fabric.global_rank, self.fabric.world_size)
        return evaluate_split(networks, self.data, split, autocast, *place)

    def _save(self, position: Position) -> None:
        self.saved = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        check_weights(self.network, position, self.folder)
        tensors = optimizer_tensors([each.optimizer for each in self.optimizers])
        if self.average:
            tensors |= {f"{AVERAGE}/{name}": tensor for name, tensor in self.average.state_dict().items()}
        save_checkpoint(self.folder, Checkpoint(position, self.network.state_dict(), tensors))


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Averages floats with `decay`; whole numbers (a hash's places, counters) are what they are now."""

    def update(averages: list[Tensor], current: list[Tensor], _averaged: Any) -> None:
        if averages[0].is_floating_point():  # tensors come sorted by their type
            torch._foreach_lerp_(averages, current, 1 - decay)
            return
        for average, now in zip(averages, current, strict=True):
            average.copy_(now)

    return update


def _set_up(fabric: Fabric, optimizer: torch.optim.Optimizer) -> _FabricOptimizer:
    wrapped = fabric.setup_optimizers(optimizer)
    assert isinstance(wrapped, _FabricOptimizer)  # one in, one out
    return wrapped


class _StepLoss(nn.Module):
    """A step's loss as a module, so that Fabric's wrappers (DDP, precision) see the whole step; scalars by name."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.network = method.network
        self.rests = method.rests
        self._loss = method.loss

    def forward(self, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        terms = self._loss(images, labels, progress)
        return {"loss": terms.total, **terms.parts}


@contextmanager
def _averaged(method: Method, average: AveragedModel | None) -> Iterator[None]:
    """Within the block the method's network is the one with averaged weights, where there is one."""
    trained = method.network
    if average is not None:
        method.network = average.module
    try:
        yield
    finally:
        method.network = trained


def _config(
    method: Method, data: ImageData, recipe: Recipe, model: ModelSpec | None, seed: int, fabric: Fabric
) -> dict[str, Any]:
    """config.json: everything needed to repeat the run."""
    return {
        "format": FORMAT,
        "model": model.to_json() if model else None,
        "data": asdict(data.spec),
        "images": data.fingerprint(),
        "method": {"name": method.name, "settings": method.settings()},
        "recipe": recipe.to_json(),
        "seed": seed,
        "processes": fabric.world_size,
        "device": fabric.device.type,
        "precision": precision_name(fabric),
        "classes": list(data.classes),
        "preprocessing": asdict(data.preprocessing),
        "versions": versions(),
        "machine": machine_facts().to_json(),
    }
