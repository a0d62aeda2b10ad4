"""Renamed options: the table of old and new names.

The command line rejects an old name and suggests the new one. Configurations recorded by older runs are read with the
new names.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Keys are dotted names, as in a configuration and on the command line. A key may also be a current option of another
# command, because each command only looks up options that it does not have. If the new name depends on the command,
# all of them are listed.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "train.run_dir": "train.run",
        "data.disturb_scale": "data.disturb",
        "run_dir": "run",
        "task": "disturb",
        "tasks": "disturb",
        "folder": "out logs",
    }
)


def with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the options in a recorded configuration, given as sections of options, to their current names."""
    return {
        section: {_new_name(section, name): value for name, value in options.items()}
        if isinstance(options, Mapping)
        else options
        for section, options in config.items()
    }


def _new_name(section: str, name: str) -> str:
    return RENAMED.get(f"{section}.{name}", name).rpartition(".")[2]
