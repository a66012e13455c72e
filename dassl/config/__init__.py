"""Configuration: YACS nodes, defaults, and merging of files, flags and overrides."""

from .defaults import (
    clean_cfg,
    complete_config,
    declare_config,
    declare_word,
    get_cfg_default,
)
from .hints import declare_aliases
from .identity import NOT_IDENTITY, UNUSED_RULES, identifying_settings
from .loading import load_config
from .node import CONFIG_RULES, CfgNode, Config, to_dict

__all__ = [
    "CONFIG_RULES",
    "NOT_IDENTITY",
    "UNUSED_RULES",
    "CfgNode",
    "Config",
    "clean_cfg",
    "complete_config",
    "declare_aliases",
    "declare_config",
    "declare_word",
    "get_cfg_default",
    "identifying_settings",
    "load_config",
    "to_dict",
]
