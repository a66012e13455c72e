"""The small helpers by the names under which Dassl has them: all in one module."""

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
        UserError: the file is missing or no readable image.
    """
    from ..data.images import read_image as read  # which needs this package

    return read(str(path))
