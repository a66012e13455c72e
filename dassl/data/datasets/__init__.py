"""Base classes of datasets, split files, few-shot sampling and folder listings."""

from .annotations import lookup, read_mat, read_rows
from .base_dataset import DatasetBase, Datum
from .build import DATASET_REGISTRY, build_dataset
from .class_checks import refuse_one_class
from .class_names import ClassNames
from .listing import class_items, folder_items, list_images
from .source import Source, page_of
from .split_dataset import SplitDataset
from .splits import Split, read_items, split_all, split_lists

__all__ = [
    "DATASET_REGISTRY",
    "ClassNames",
    "DatasetBase",
    "Datum",
    "Source",
    "Split",
    "SplitDataset",
    "build_dataset",
    "class_items",
    "folder_items",
    "list_images",
    "lookup",
    "page_of",
    "read_items",
    "read_mat",
    "read_rows",
    "refuse_one_class",
    "split_all",
    "split_lists",
]
