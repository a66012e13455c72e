"""Dataset of class names without images."""

from safeio.errors import UserError

from ...config import Config
from .base_dataset import DatasetBase
from .build import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class ClassNames(DatasetBase):
    """Dataset of DATASET.CLASSNAMES without images, for a trained model that classifies others.

    Raises:
        UserError: DATASET.CLASSNAMES is empty.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        names = list(cfg.DATASET.CLASSNAMES)
        if not names:
            raise UserError("DATASET.CLASSNAMES is empty; the dataset ClassNames needs names")
        self._classnames = names
        self._lab2cname = dict(enumerate(names))
        self._num_classes = len(names)
