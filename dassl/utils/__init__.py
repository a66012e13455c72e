"""Helpers that every part of the engine uses."""

from .checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_pretrained_weights,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from .command_line import Parser, exit_code, refused_by_system
from .errors import UserError
from .fetching import download_url
from .files import (
    PathLike,
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    prepare_output_dir,
    publish_json,
    read_json,
    write_atomic,
    write_json,
)
from .keeping import file_state, keep_loaded, kept
from .last_good import load_last_common, load_last_good, resume_from_checkpoint
from .logger import (
    Logger,
    setup_logger,
)
from .meters import (
    AverageMeter,
    MetricMeter,
)
from .registry import Registry
from .sealing import DamagedFile, read_sealed, sealed, unsealed, write_sealed
from .tools import (
    check_availability,
    choose_device,
    collect_env_info,
    collector_paused,
    generator_states,
    get_most_similar_str_to_a_from_b,
    isolated_rng,
    package_versions,
    read_image,
    set_generator_states,
    set_random_seed,
    tolist_if_not,
)
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
    "DamagedFile",
    "Logger",
    "MetricMeter",
    "Parser",
    "PathLike",
    "Registry",
    "UserError",
    "adjust_learning_rate",
    "check_availability",
    "check_isfile",
    "choose_device",
    "collect_env_info",
    "collector_paused",
    "count_num_param",
    "download_url",
    "exit_code",
    "file_state",
    "find_checkpoint",
    "generator_states",
    "get_most_similar_str_to_a_from_b",
    "init_network_weights",
    "isolated_rng",
    "keep_loaded",
    "kept",
    "listdir_nohidden",
    "load_checkpoint",
    "load_last_common",
    "load_last_good",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_all_layers",
    "open_specified_layers",
    "package_versions",
    "prepare_output_dir",
    "publish_json",
    "random_states",
    "read_image",
    "read_json",
    "read_sealed",
    "refused_by_system",
    "restore_random_states",
    "resume_from_checkpoint",
    "save_checkpoint",
    "sealed",
    "set_bn_to_eval",
    "set_generator_states",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "unsealed",
    "write_atomic",
    "write_json",
    "write_sealed",
]
