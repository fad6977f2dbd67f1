"""Make convolutional networks small and fast, with proof: the public API."""

from adjcompress.adjoined import AdjoinedNetwork, Curriculum, RandomMask, adjoin, adjoint_loss, trunk_of
from adjcompress.bench import benchmark, measure_table, read_table
from adjcompress.cost import Counts, LatencyTable, count
from adjcompress.data import ImageData, load_data
from adjcompress.deploy import (
    ExportOptions,
    Int8Options,
    export_onnx,
    export_package,
    extract_package,
    load_package,
    package_info,
    save_package,
)
from adjcompress.errors import AdjCompressError
from adjcompress.methods import AdjoinedMethod, BudgetedMethod, MethodOptions, StandardMethod, SubstituteMethod
from adjcompress.models import ModelSpec, create_model
from adjcompress.models.graph import Graph, GraphNetwork, Node
from adjcompress.report import write_report
from adjcompress.substitutes import Substitution, apply_substitution, plan_substitution, substitute
from adjcompress.supernets import distributed_cost
from adjcompress.training import Hardware, Recipe, Reporter, fit, launch, open_run, recipe
from adjcompress.version import __version__
from adjcompress.widths import WidthPlan, compare, order_channels_, plan_widths, reestimate_batch_norm_, slice_model

__all__ = [
    "AdjCompressError",
    "AdjoinedMethod",
    "AdjoinedNetwork",
    "BudgetedMethod",
    "Counts",
    "Curriculum",
    "ExportOptions",
    "Graph",
    "GraphNetwork",
    "Hardware",
    "ImageData",
    "Int8Options",
    "LatencyTable",
    "MethodOptions",
    "ModelSpec",
    "Node",
    "RandomMask",
    "Recipe",
    "Reporter",
    "StandardMethod",
    "SubstituteMethod",
    "Substitution",
    "WidthPlan",
    "__version__",
    "adjoin",
    "adjoint_loss",
    "apply_substitution",
    "benchmark",
    "compare",
    "count",
    "create_model",
    "distributed_cost",
    "export_onnx",
    "export_package",
    "extract_package",
    "fit",
    "launch",
    "load_data",
    "load_package",
    "measure_table",
    "open_run",
    "order_channels_",
    "package_info",
    "plan_substitution",
    "plan_widths",
    "read_table",
    "recipe",
    "reestimate_batch_norm_",
    "save_package",
    "slice_model",
    "substitute",
    "trunk_of",
    "write_report",
]
