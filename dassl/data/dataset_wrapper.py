"""PyTorch dataset that reads and transforms the images of a list."""

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
        transform: one transform, or several that each produce an image (img, img2, ...).
        is_train: repeat the augmentation K_TRANSFORMS times (img, img2, ...), and cache up to
            DATALOADER.CACHE_MB of decoded images, which makes epochs over few small images cheap.

    With RETURN_IMG0 an item also has img0, the image without augmentation.

    Attributes:
        decode: how files are decoded, see `read_image`.
        pool: the images from which these were sampled; empty if unknown.
    """

    pool: Sequence[Datum] = ()

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
        max_pixels()  # reports a wrong limit here rather than at the first image
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
        """Return the items of a batch; PyTorch's loader calls this instead of `__getitem__`.

        Augmentation depends on the batch's seed, not on the worker that loads it. A seed for every
        image would cost as much as its augmentation.
        """
        # Test images have no random augmentation.
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
            hint = "repair or replace it, or skip such images with DATALOADER.ON_BAD_IMAGE skip"
            raise UserError(f"{error}; {hint}") from error
        size = 3 * image.width * image.height
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[index] = image
        return image

    def _transformed(self, img0: Image.Image) -> dict[str, Any]:
        chosen = self.to_tensor if self.transform is None else self.transform
        images: list[Any] = []
        for transform in chosen if isinstance(chosen, Sequence) else [chosen]:
            new = self._transform_image(transform, img0)
            images += new if isinstance(new, list) else [new]
        return {f"img{number if number > 1 else ''}": x for number, x in enumerate(images, 1)}

    def _transform_image(self, tfm: Transform, img0: Image.Image) -> Any:
        """Return the transformed image, or a list of K_TRANSFORMS such images."""
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images
