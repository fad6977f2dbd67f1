"""How is a network trained, kept and evaluated?"""

from adjcompress.training.evaluation import Evaluation, evaluate, evaluate_split
from adjcompress.training.hardware import Hardware, launch
from adjcompress.training.loop import fit
from adjcompress.training.recipes import RECIPES, Recipe, recipe
from adjcompress.training.reporter import Reporter, StepNews
from adjcompress.training.run import Run, begun_run, latest_run, new_run_folder, open_run, read_plan
from adjcompress.training.start import TrainOptions, hardware_of, resume, train
from adjcompress.training.ways import WAYS, Way, default_way

__all__ = [
    "RECIPES",
    "WAYS",
    "Evaluation",
    "Hardware",
    "Recipe",
    "Reporter",
    "Run",
    "StepNews",
    "TrainOptions",
    "Way",
    "begun_run",
    "default_way",
    "evaluate",
    "evaluate_split",
    "fit",
    "hardware_of",
    "latest_run",
    "launch",
    "new_run_folder",
    "open_run",
    "read_plan",
    "recipe",
    "resume",
    "train",
]
