"""Methods, one file each; importing this package imports every file and registers its trainers."""

from dassl.utils.discovery import import_plugins

import_plugins(__name__, __path__)
