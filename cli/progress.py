"""How does a person see training go? A bar on a terminal, a line an epoch elsewhere; on standard error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click
from adjcompress_cli.show import warn
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import nn

from adjcompress.deploy import align_auto, block_channels, unblocked_by
from adjcompress.methods import Method
from adjcompress.substitutes import Substitute
from adjcompress.training import Recipe, Reporter, StepNews
from adjcompress.widths import WidthPlan


class ProgressReporter(Reporter):
    """Bar, loss, accuracy of every network, images/s and time left.

    `small_first`: the part of a training that begins in which the small networks learn alone, to be told; and if `by_default`,
    how to have it otherwise.
    """

    def __init__(self, small_first: float = 0.0, by_default: bool = False) -> None:
        self._small_first, self._by_default = small_first, by_default
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._accuracy = ""
        self.run: str | None = None  # once its training has begun

    def begins(self, method: Method) -> None:
        networks = method.deployables()
        _tell_lowered(networks)
        for name, network in networks.items():
            if (plan := method.plan_of(name)) is not None:
                _warn_of_blocks(name, network, plan)

    def started(self, run: str, recipe: Recipe, epoch: int) -> None:
        where = f", after {epoch} of its epochs" if epoch else ""
        self.run = run
        click.echo(f"{run}: recipe {recipe.name}, {recipe.epochs} epochs{where}", err=True)
        if self._small_first:
            alone = f"{self._small_first * recipe.epochs:.3g} of {recipe.epochs} epochs"
            other = "; --way papers begins with all" * self._by_default
            click.echo(f"Small networks first: alone for {alone}, then with the full one{other}.", err=True)
        if sys.stderr.isatty():
            columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(30), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", epoch=f"{epoch + 1}/{recipe.epochs}", text="")
            self._bar.start()

    def step(self, news: StepNews) -> None:
        if self._bar is None:
            return
        text = f"{news.images_per_second:.0f} images/s, {_clock(news.seconds_left)} left{self._accuracy}"
        if news.step % 10 == 0:  # the loss lies on the device: reading it waits for the step
            text = f"loss {news.loss.item():.3f}, {text}"
            self._bar.update(
                self._task, completed=news.step, total=news.steps, epoch=f"{news.epoch + 1}/{news.epochs}", text=text
            )

    def epoch(self, record: Mapping[str, Any]) -> None:
        scores = ", ".join(f"{name} {100 * score['accuracy']:.2f} %" for name, score in record["validation"].items())
        self._accuracy = f", validation: {scores}"
        train = record["train"]
        line = (
            f"epoch {record['epoch']:3}  loss {train['loss']:.4f}  validation: {scores}  "
            f"{train['images_per_second']:.0f} images/s  {_clock(record['seconds'])}"
        )
        for name, cost in record.get("search", {}).get("costs", {}).items():
            if "budget" in cost:
                line += f"  {name} {cost['expected']:.3f} of {cost['budget']:.3f}"
        if self._bar is None:
            click.echo(line, err=True)
        else:
            self._console.print(line, highlight=False)

    def warn(self, text: str) -> None:
        warn(text)

    def finished(self, results: Mapping[str, Any]) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _tell_lowered(networks: Mapping[str, nn.Module]) -> None:
    """Which settings of substitutes do not fit every layer as asked, told of the first network: others are parts of it."""
    for name, network in networks.items():
        lowered = [layer for layer in network.modules() if isinstance(layer, Substitute) and layer.used != layer.setting]
        if lowered:
            fitting = Counter(f"{layer.used:g}" for layer in lowered).most_common()
            shown = ", ".join(f"{used} in {layers}" for used, layers in fitting)
            asked = f"{lowered[0].setting:g} {lowered[0].setting_is}"
            click.echo(f"{name}: {asked} do not fit every layer; there are {shown} of them.", err=True)
            return


def _warn_of_blocks(name: str, network: nn.Module, plan: WidthPlan) -> None:
    """Say before a training what an export would say after it: which widths ONNX Runtime is slow with here."""
    if slow := unblocked_by(plan, network):
        first, convolutions = slow[0], sum(isinstance(module, nn.Conv2d) for module in network.modules())
        warn(
            f"{name}: {len(slow)} of {convolutions} convolutions do not fit the blocks of {block_channels()} channels that "
            f"ONNX Runtime is fast with on this CPU, {first.layer} with {first.channels_in} -> {first.channels_out} channels "
            f"first. Multiples of {align_auto()}, as of --align auto, do."
        )


def _clock(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
