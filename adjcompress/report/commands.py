"""Which commands make this run, and what came of it, again?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adjcompress.bench import ENGINES
from adjcompress.bench.latency import SEQUENTIAL
from adjcompress.deploy import ExportOptions
from adjcompress.methods import METHODS
from adjcompress.report.deployed import Bench, Int8, OnnxFile, Package
from adjcompress.report.gather import RunFacts
from adjcompress.report.words import printable

_LINE = 64
_KINDS = {"float16": "--fp16", "int8": "--int8"}


@dataclass(frozen=True)
class Command:
    """One command, broken into lines, and what it does. `text` is None where none can be told: `purpose` says why."""

    purpose: str
    text: str | None


def commands(run: RunFacts) -> list[Command]:
    """The commands in the order in which they were run: those that were, and nothing else."""
    found = [_train(run.config)]
    found += [Command(f"Extract {package.name or 'a network'}", _extract(run, package)) for package in run.deployed.packages]
    exported = [file for file in run.deployed.files if not file.untrained]  # bench makes these itself
    found += [Command(f"Export {file.name or 'a network'}, {file.kind}", _export(file)) for file in exported]
    found += [Command(f"Measure: {bench.label}", _bench(bench)) for bench in run.deployed.benches if bench.timings]
    return found


def _train(config: Mapping[str, Any]) -> Command:
    options = (config.get("notes") or {}).get("options")
    if not isinstance(options, Mapping):
        return Command(
            "Trained from Python, with adjcompress.fit: its model, method, recipe and seed stand in config.json.", None
        )
    words = ["adjcompress train"]
    if options.get("method") == "adjoined" and "way" not in options:
        words.append("--way papers")  # there was no other when it was trained
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, list):
            words += [_option(option, item) for item in value]
        elif value is True:
            words.append(option)
        elif name == "detach" and value is False and options.get("way"):
            words.append("--no-detach")  # what is meant without it depends on the way
        elif value is not None and value is not False:
            words.append(_option(option, value))
    machine = {"--device": config.get("device"), "--precision": config.get("precision")}
    words += [_option(option, value) for option, value in machine.items() if value not in (None, "32", "32-true")]
    words += ["--compile"] if config.get("compile") else []
    if config.get("processes", 1) != 1:
        words.append(_option("--devices", config["processes"]))
    return Command("Train", _broken(words))


def _extract(run: RunFacts, package: Package) -> str:
    words = ["adjcompress extract", _option("--run", run.folder)]
    alpha = re.fullmatch(r"alpha([\d_]+)", package.name or "")
    if alpha or package.name == "full":
        words.append(_option("--alpha", alpha[1].replace("_", ".") if alpha else 1))
    method = METHODS.get(run.config["method"]["name"])
    if package.reestimated is not None and not (method is not None and method.reestimates):
        words.append("--reestimate")
    return _broken([*words, _option("-o", package.path)])


def _export(file: OnnxFile) -> str:
    words = [f"adjcompress export {_quoted(file.path)}"]
    if file.package:
        words.append(_option("--from", file.package))
    precision = file.kind.split()[0]
    usual = ExportOptions(float16=precision == "float16")
    if precision in _KINDS:
        words.append(_KINDS[precision])
    words += _int8_options(file.int8) if file.int8 else []
    if file.opset not in (None, usual.opset):
        words.append(_option("--opset", file.opset))
    words += [f"--{flag.replace('_', '-')}" for flag in file.flags]
    if file.tolerance not in (None, usual.largest_difference):
        words.append(_option("--tolerance", file.tolerance))
    return _broken(words)


def _int8_options(int8: Int8) -> list[str]:
    asked = {
        "--calibration": int8.calibration_images,
        "--max-drop": int8.max_drop_points,
        "--int8-for": int8.processor,
        "--ranges": int8.ranges,
    }
    words = [_option(name, value) for name, value in asked.items() if value is not None]
    return words + [_option("--int8-keep", layer.name) for layer in int8.float_layers if "--int8-keep" in (layer.why or "")]


def _bench(bench: Bench) -> str:
    paths = list(dict.fromkeys(timing.path for timing in bench.timings if timing.path != bench.reference))
    words = [" ".join(["adjcompress bench", *(_quoted(path) for path in paths)])]
    if bench.reference:
        words.append(_option("--reference", bench.reference))
    settings = [timing.setting for timing in bench.timings]
    words += [_option("--engine", engine) for engine in ENGINES if engine in {setting.engine for setting in settings}]
    targets = dict.fromkeys(setting.target for setting in settings if setting.target)
    if targets:
        return _broken([*words, *(_option("--target", target) for target in targets)])
    threads = dict.fromkeys(str(setting.threads) for setting in settings if setting.threads)
    words += [_option("--threads", ",".join(threads))] if threads else []
    batches = {setting.batch for setting in settings if setting.batch}
    words += [_option("--batch", max(batches))] if batches else []
    executors = dict.fromkeys(setting.executor for setting in settings)
    words += [_option("--executor", executor) for executor in executors] if list(executors) != [SEQUENTIAL] else []
    return _broken(words)


def _option(name: str, value: Any) -> str:
    short = f"{value:g}" if isinstance(value, float) else ""
    return f"{name} {_quoted(short if short and float(short) == value else printable(value))}"


def _quoted(text: str) -> str:
    return shlex.quote(text)


def _broken(words: list[str]) -> str:
    """Words as one shell command, its lines broken between options."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 <= _LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return " \\\n".join(lines)
