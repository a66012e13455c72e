"""Datasets: each file only says how to list its images and class names.

Every file in this folder is imported and registers what it defines.
"""

from dassl.utils.discovery import import_plugins

import_plugins(__name__, __path__)
