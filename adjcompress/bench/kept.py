"""How do timings stay with the run whose networks were timed?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adjcompress.bench.latency import BenchReport, Timing
from adjcompress.deploy.trail import deployed, keep
from adjcompress.training import Run


def keep_timings(run: Run, report: BenchReport) -> None:
    """Keep timings with a run, for `write_report`: a report for each setting; of other files in it, one of their own."""
    earlier = deployed(run.folder).get("bench", {})
    settings: dict[str, list[Timing]] = {}
    for timing in report.timings:
        name = timing.setting if timing.engine == "onnxruntime" else f"{timing.setting}, {timing.engine}"
        settings.setdefault(name, []).append(timing)
    for name, timings in settings.items():
        files = {str(timing.path) for timing in timings}
        reference = timings[0].reference
        if name in earlier and {timing["path"] for timing in earlier[name]["timings"]} != files:
            others = files - {str(reference)} or files
            name += f": {', '.join(sorted(Path(file).name for file in others))}"
        keep(run.folder, "bench", name, replace(report, reference=reference, timings=tuple(timings)).to_json())
