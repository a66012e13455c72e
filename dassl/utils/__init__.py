"""Helpers for all parts of dassl.

Helpers that need PyTorch are imported on first access, so that a command can check its flags first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safeio.errors import UserError
from safeio.files import check_isfile, listdir_nohidden, mkdir_if_missing, read_json, write_json

from .command_line import Parser, exit_code, refused_by_system
from .fetching import download_url
from .logger import Logger, setup_logger
from .names import check_availability, get_most_similar_str_to_a_from_b, tolist_if_not
from .pairs import PairsParser
from .process_cache import cached, file_state, is_reusing, reuse_loaded
from .registry import Registry

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, load_pretrained_weights
    from .checkpoint_folder import (
        CheckpointFolder,
        newest_common,
        resume_from_checkpoint,
        save_checkpoint,
    )
    from .environment import choose_device, collect_env_info, package_versions
    from .generators import (
        generator_states,
        isolated_rng,
        random_states,
        restore_random_states,
        set_generator_states,
        set_random_seed,
    )
    from .meters import AverageMeter, MetricMeter
    from .tools import read_image
    from .torchtools import (
        adjust_learning_rate,
        count_num_param,
        init_network_weights,
        open_all_layers,
        open_specified_layers,
        set_bn_to_eval,
    )

__all__ = [
    "AverageMeter",
    "CheckpointFolder",
    "Logger",
    "MetricMeter",
    "PairsParser",
    "Parser",
    "Registry",
    "UserError",
    "adjust_learning_rate",
    "cached",
    "check_availability",
    "check_isfile",
    "choose_device",
    "collect_env_info",
    "count_num_param",
    "download_url",
    "exit_code",
    "file_state",
    "generator_states",
    "get_most_similar_str_to_a_from_b",
    "init_network_weights",
    "is_reusing",
    "isolated_rng",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "newest_common",
    "open_all_layers",
    "open_specified_layers",
    "package_versions",
    "random_states",
    "read_image",
    "read_json",
    "refused_by_system",
    "restore_random_states",
    "resume_from_checkpoint",
    "reuse_loaded",
    "save_checkpoint",
    "set_bn_to_eval",
    "set_generator_states",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]

_NEED_TORCH = (
    *("checkpoint", "checkpoint_folder", "environment", "generators", "meters", "tools"),
    "torchtools",
)


def __getattr__(name: str) -> Any:
    """Import a helper that needs PyTorch."""
    if name in __all__:
        for module in (import_module(f"{__name__}.{module}") for module in _NEED_TORCH):
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
