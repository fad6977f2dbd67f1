"""Which images are trained and tested on, and how do they arrive?"""

from adjcompress.data.augment import Augmentation, Central, augmentation
from adjcompress.data.loader import (
    TrainingBatches,
    check_batches,
    epoch_batches,
    evaluation_batch,
    evaluation_batches,
    first_pixels,
    smallest_batch,
    steps_of,
)
from adjcompress.data.sources import check_asked, data_names, load_data, read_data
from adjcompress.data.splits import IGNORED, DataSpec, FileSplit, ImageData, Preprocessing, Split, TensorSplit, same_images

__all__ = [
    "IGNORED",
    "Augmentation",
    "DataSpec",
    "FileSplit",
    "ImageData",
    "Preprocessing",
    "Split",
    "TensorSplit",
    "TrainingBatches",
    "augmentation",
    "Central",
    "check_asked",
    "check_batches",
    "data_names",
    "epoch_batches",
    "evaluation_batch",
    "evaluation_batches",
    "first_pixels",
    "load_data",
    "read_data",
    "same_images",
    "smallest_batch",
    "steps_of",
]
