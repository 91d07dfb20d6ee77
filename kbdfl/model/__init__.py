"""The next-word model: its shape, its presets and how it starts."""

from kbdfl.model.cifg import PRESETS, CifgConfig, init_params, preset

__all__ = ["PRESETS", "CifgConfig", "init_params", "preset"]
