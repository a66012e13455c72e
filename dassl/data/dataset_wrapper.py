"""From a dataset's list to images: the PyTorch dataset that reads and transforms them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms as T

from safeio.errors import UserError

from ..config import Config
from ..utils import isolated_rng
from .datasets import Datum
from .images import decoding, is_broken_image, max_pixels, read_image
from .transforms.bounded import Resize
from .transforms.transforms import interpolation_mode, to_tensor

Transform = Callable[[Any], Any]


class DatasetWrapper(Dataset[dict[str, Any]]):
    """Reads and transforms images; one item is {"img", "label", "domain", "impath", "index"}.

    Args:
        cfg: INPUT and DATALOADER groups are read.
        data_source: the images.
        transform: one, or several that each give an image of their own (img, img2, ...).
        is_train: augmentation may be repeated (K_TRANSFORMS), and decoded images are kept in memory
            up to DATALOADER.CACHE_MB, which makes epochs over few small images cheap.

    `decode` says how files are decoded, see `read_image`. With K_TRANSFORMS above 1 the item has
    img, img2, ... With RETURN_IMG0 it also has img0, the image without augmentation.
    """

    def __init__(
        self,
        cfg: Config,
        data_source: Sequence[Datum],
        transform: Transform | Sequence[Transform] | None = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise UserError(
                f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to repeat"
            )
        max_pixels()  # refuses a wrong limit once, not image by image
        self.decode = decoding(cfg)
        resize = Resize(tuple(cfg.INPUT.SIZE), interpolation=interpolation_mode(cfg))
        self.to_tensor = T.Compose([resize, to_tensor(cfg, cfg.INPUT.TRANSFORMS)])
        self._cache: dict[int, Image.Image] = {}
        self._cache_left = cfg.DATALOADER.CACHE_MB * 2**20 if is_train else 0

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": int(idx),
        }
        img0 = self._read(int(idx), item.impath)
        output.update(self._transformed(img0))
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return a batch's items; the loader prefers this to item after item.

        What augmentation draws depends on the batch's seed, not on the process that loads it.
        Seeding for every single image would cost as much as its augmentation.
        """
        # Only augmentation is random; test images need no generator.
        seed = getattr(indices[0], "seed", None) if self.is_train else None
        with nullcontext() if seed is None else isolated_rng(seed):
            return [self[index] for index in indices]

    def _read(self, index: int, path: str) -> Image.Image:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        try:
            image = read_image(path, self.decode)
        except UserError as error:
            if not is_broken_image(error):
                raise
            hint = "mend or replace it, or let DATALOADER.ON_BAD_IMAGE skip leave such images out"
            raise UserError(f"{error}; {hint}") from error
        size = 3 * image.width * image.height
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[index] = image
        return image

    def _transformed(self, img0: Image.Image) -> dict[str, Any]:
        if self.transform is None:
            return {"img": self.to_tensor(img0)}
        transforms = (
            list(self.transform) if isinstance(self.transform, Sequence) else [self.transform]
        )
        images: list[Any] = []
        for transform in transforms:
            new = self._transform_image(transform, img0)
            images += new if isinstance(new, list) else [new]
        return {f"img{number if number > 1 else ''}": x for number, x in enumerate(images, 1)}

    def _transform_image(self, tfm: Transform, img0: Image.Image) -> Any:
        """One image under a transform, or a list of K_TRANSFORMS of them."""
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images
