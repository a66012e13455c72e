"""The base of all datasets, split files and few-shot drawing."""

from .base_dataset import DatasetBase, Datum
from .build import DATASET_REGISTRY, build_dataset
from .class_names import ClassNames
from .source import Source
from .split_dataset import SplitDataset

__all__ = [
    "DATASET_REGISTRY",
    "ClassNames",
    "DatasetBase",
    "Datum",
    "Source",
    "SplitDataset",
    "build_dataset",
]
