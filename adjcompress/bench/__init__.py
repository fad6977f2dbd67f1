"""How fast, how large, on which machine?"""

from adjcompress.bench.cuda import benchmark_cuda, best_batch, time_networks
from adjcompress.bench.kept import keep_timings
from adjcompress.bench.latency import ENGINES, BenchReport, Timing, benchmark
from adjcompress.bench.prediction import read_table
from adjcompress.bench.summary import Ratio, Summary, speedup, summarise
from adjcompress.bench.table import TableReport, measure_table
from adjcompress.bench.targets import TARGETS, Target, target
from adjcompress.machine import Machine, machine_facts

__all__ = [
    "ENGINES",
    "TARGETS",
    "BenchReport",
    "Machine",
    "Ratio",
    "Summary",
    "TableReport",
    "Target",
    "Timing",
    "benchmark",
    "benchmark_cuda",
    "best_batch",
    "keep_timings",
    "machine_facts",
    "measure_table",
    "read_table",
    "speedup",
    "summarise",
    "target",
    "time_networks",
]
