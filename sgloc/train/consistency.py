"""Before the first step: all ranks are about to compute the same run."""

from dataclasses import asdict
from typing import Any

from sgloc import dist
from sgloc.config import RunConfig, flat
from sgloc.data.manifest import Manifest
from sgloc.errors import ConfigError

# Places may be named differently on every machine; what stands there is compared.
_LOCAL_OPTIONS = frozenset({"data.path", "data.cache", "train.init_from"})


def refuse_other_ranks(config: RunConfig, manifest: Manifest, versions: dict[str, str]) -> None:
    """Refuse to start where a rank was given something else. All ranks must call it together.

    Args:
        config: of this rank.
        manifest: of the shards that this rank sees.
        versions: of the programs that this rank runs.

    Raises:
        ConfigError: on every rank, naming the first rank that differs from rank 0, and in what.
    """
    options = {name: value for name, value in flat(asdict(config)).items() if name not in _LOCAL_OPTIONS}
    mine = {**options, **flat(versions, "versions."), **_of_manifest(manifest)}
    every_rank = dist.gather_to_rank_0(mine)

    def compare() -> None:
        for rank, theirs in enumerate(every_rank):
            for name in {**every_rank[0], **theirs}:
                if theirs.get(name) != every_rank[0].get(name):
                    raise ConfigError(
                        f"rank {rank} has {name} = {theirs.get(name)}, rank 0 has {every_rank[0].get(name)}; "
                        "start all ranks with the same options, shards and programs"
                    )

    dist.on_rank_0(compare)


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    """What tells sets of shards apart, what people understand first."""
    counts = {f"manifest.{name}.num_sketches": split.num_sketches for name, split in manifest.splits.items()}
    return {
        "manifest.categories": len(manifest.categories),
        **counts,
        "manifest.scale": manifest.scale,
        "manifest.identity": manifest.identity,
    }
