"""Configuration: YACS nodes, defaults, and the layering of files, flags and overrides."""

from .defaults import clean_cfg, declare_config, get_cfg_default
from .loading import load_config
from .node import CfgNode, to_dict

__all__ = [
    "CfgNode",
    "clean_cfg",
    "declare_config",
    "get_cfg_default",
    "load_config",
    "to_dict",
]
