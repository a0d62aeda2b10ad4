"""Options that have another name now: the one table of old names and new ones.

The command line refuses an old name and gives the new one. What older runs wrote down is read under the new names.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# By dotted names, as a configuration and the command line have them. A name that is an option of another command now
# stands here too: each command refuses what is no option of its own. Where commands differ, the new names are several.
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
    """A recorded configuration of sections of options, with the names that these options have now."""
    return {
        section: {_new_name(section, name): value for name, value in options.items()}
        if isinstance(options, Mapping)
        else options
        for section, options in config.items()
    }


def _new_name(section: str, name: str) -> str:
    return RENAMED.get(f"{section}.{name}", name).rpartition(".")[2]
