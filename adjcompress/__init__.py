"""Make convolutional networks small and fast, with proof: the public API."""

from adjcompress.adjoined import AdjoinedNetwork, Curriculum, RandomMask, adjoin, adjoint_loss, trunk_of
from adjcompress.bench import benchmark, measure_table, read_table
from adjcompress.cost import Counts, LatencyTable, count
from adjcompress.data import DataSpec, ImageData, load_data, read_data
from adjcompress.deploy import (
    ExportOptions,
    Int8Options,
    export_onnx,
    export_package,
    extract_package,
)
from adjcompress.errors import AdjCompressError
from adjcompress.methods import (
    AdjoinedMethod,
    BudgetedMethod,
    DanMethod,
    DistillMethod,
    DropoutMethod,
    MethodOptions,
    SearchMethod,
    StandardMethod,
    SubstituteMethod,
)
from adjcompress.models import ModelSpec, create_model
from adjcompress.models.graph import Graph, GraphNetwork, Node
from adjcompress.packages import load_package, package_info, save_package
from adjcompress.report import write_report
from adjcompress.substitutes import Substitution, apply_substitution, plan_substitution, substitute
from adjcompress.supernets import distributed_cost
from adjcompress.training import (
    Evaluation,
    Hardware,
    Recipe,
    Reporter,
    Run,
    TrainOptions,
    evaluate_split,
    fit,
    launch,
    open_run,
    recipe,
    resume,
    train,
)
from adjcompress.version import __version__
from adjcompress.widths import WidthPlan, compare, order_channels_, plan_widths, reestimate_batch_norm_, slice_model

__all__ = [
    "AdjCompressError",
    "AdjoinedMethod",
    "AdjoinedNetwork",
    "BudgetedMethod",
    "Counts",
    "Curriculum",
    "DanMethod",
    "DataSpec",
    "DistillMethod",
    "DropoutMethod",
    "Evaluation",
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
    "Run",
    "SearchMethod",
    "StandardMethod",
    "SubstituteMethod",
    "Substitution",
    "TrainOptions",
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
    "evaluate_split",
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
    "read_data",
    "read_table",
    "recipe",
    "reestimate_batch_norm_",
    "resume",
    "save_package",
    "slice_model",
    "substitute",
    "train",
    "trunk_of",
    "write_report",
]
