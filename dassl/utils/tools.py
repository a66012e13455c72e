"""Dassl's module of helpers; most are re-exported from their own modules."""

from PIL import Image

from safeio.files import (
    PathLike,
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    write_json,
)

from .environment import collect_env_info
from .fetching import download_url
from .generators import set_random_seed
from .names import check_availability, get_most_similar_str_to_a_from_b, tolist_if_not

__all__ = [
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def read_image(path: PathLike) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        UserError: the file is missing or not a readable image.
    """
    from ..data.images import read_image as read  # a top-level import would be circular

    return read(str(path))
