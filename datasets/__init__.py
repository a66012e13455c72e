"""Datasets: each file lists the images and class names of a dataset.

All files in this folder are imported, and register the datasets that they define.
"""

from dassl.utils.discovery import import_plugins

import_plugins(__name__, __path__)
