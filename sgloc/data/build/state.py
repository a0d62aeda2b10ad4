"""The state of a build (started, parts completed, finished), derived from the contents of its folder alone."""

import json
import re
from collections.abc import Set

from sgloc.data.build.part import PARTS, part_file
from sgloc.data.build.plan import Plan, refuse_missing_categories
from sgloc.data.manifest import FILE_NAME, SPLITS, Manifest, join_manifests, parse_manifest
from sgloc.errors import DataError
from sgloc.storage import Storage

# Holds the digest of the plan by which the folder is being, or was, built.
PLAN_NAME = "plan.sha256"
REJECTS_NAME = "rejects.ndjson"
# The part number is optional, because shards of earlier versions have none in their names.
_SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}(-\d{{5,}})?\.tar")
_BEGINNINGS = (PLAN_NAME, FILE_NAME, REJECTS_NAME, *(f"{split}-" for split in SPLITS))
_PART_FILE = re.compile(r"\d{5,}\.(json|rejects|words)")
# Number of rejects quoted in an error message.
_TOLD_REJECTS = 3


def begin(folder: Storage, plan: Plan, *, overwrite: bool, is_task: bool) -> Manifest | None:
    """Prepare a folder for starting or resuming a build.

    Returns:
        The manifest if no work remains, because an interrupted build only lacked its cleanup or other tasks have
        finished everything; else None.

    Raises:
        DataError: if the folder holds finished shards or a build of a different plan and `overwrite` is false, or holds
            shards not written by a build.
        OSError: if the folder cannot be written to.
    """
    # List the names after reading the plan, because other tasks may be finishing the build.
    is_same = not overwrite and _has_plan(folder, plan)
    names = folder.sizes().keys()
    if not overwrite:
        if is_same and FILE_NAME in names and (is_task or PARTS in names):
            return _end(folder)
        if FILE_NAME in names:
            raise DataError(
                f"{folder.location} already holds shards; choose another folder, or overwrite them to build them again"
            )
        if PLAN_NAME in names and not is_same:
            raise DataError(
                f"{folder.location} holds an unfinished build of other sources or with other options; use the same to "
                "resume it, overwrite it to start over, or choose another folder"
            )
    refuse_foreign_shards(folder, names)
    # A task must not clear the folder: tasks start simultaneously, so another may have written to it since the check.
    if not is_same and not is_task:
        clear(folder)
    folder.make_folder(PARTS)
    folder.write(PLAN_NAME, [plan.digest])
    # Check again, because other tasks may have finished the build meanwhile.
    return _end(folder) if is_task and is_finished(folder, plan) else None


def _has_plan(folder: Storage, plan: Plan) -> bool:
    """Return whether the build in the folder has the same plan."""
    try:
        return folder.content(PLAN_NAME) == plan.digest
    except FileNotFoundError:
        return False


def is_finished(folder: Storage, plan: Plan) -> bool:
    """Return whether the folder holds finished shards of the same plan."""
    return FILE_NAME in folder.sizes() and _has_plan(folder, plan)


def _end(folder: Storage) -> Manifest:
    """Remove the intermediate files of a finished build and return its manifest."""
    _remove_parts(folder)
    return parse_manifest(folder.content(FILE_NAME), f"{folder.location}/{FILE_NAME}")


def finished_parts(folder: Storage, plan: Plan) -> dict[int, Manifest]:
    """Return the manifests of the completed parts, whose shards all exist with the right sizes, by part number."""
    sizes = folder.sizes()
    finished = {}
    names = folder.sizes(PARTS)
    for number in range(len(plan.parts)):
        name = part_file(number, "json")
        if name.removeprefix(f"{PARTS}/") not in names:
            continue
        try:
            manifest = parse_manifest(folder.content(name), name)
        except (DataError, FileNotFoundError):
            continue
        if all(sizes.get(shard.path) == shard.num_bytes for shard in manifest.shards):
            finished[number] = manifest
    return finished


def finish(folder: Storage, plan: Plan) -> Manifest | int:
    """Write the manifest if all parts are built; any number of processes may call this concurrently.

    Returns:
        The manifest, or the number of missing parts.

    Raises:
        DataError: if a requested category does not occur, or no usable training drawings remain. The folder is then
            cleared.
        OSError: if the folder cannot be written to.
    """
    parts = finished_parts(folder, plan)
    try:
        if len(parts) == len(plan.parts):
            return _join(folder, plan, [parts[number] for number in range(len(parts))])
    except FileNotFoundError:
        # Another process may have finished the same build first and removed the intermediate files.
        if not is_finished(folder, plan):
            raise
    return _end(folder) if is_finished(folder, plan) else len(plan.parts) - len(parts)


def _join(folder: Storage, plan: Plan, parts: list[Manifest]) -> Manifest:
    manifest = join_manifests(parts)
    first_rejects = _write_rejects(folder, len(parts))
    try:
        _check(folder, plan, manifest, first_rejects)
    except DataError:
        # Clear the folder, because resuming with these parts would fail again. Keep the rejects for the user to read.
        clear(folder)
        if not first_rejects:
            folder.remove_file(REJECTS_NAME)
        raise
    folder.write(FILE_NAME, [manifest.to_json().encode()])
    _remove_parts(folder)
    return manifest


def _write_rejects(folder: Storage, num_parts: int) -> str:
    """Join the parts' rejects into one file and return a description of the first few, for error messages."""
    start = b""
    with folder.create(REJECTS_NAME) as write:
        for number in range(num_parts):
            for content in folder.pieces(part_file(number, "rejects")):
                write(content)
                start = start or content
    first = [json.loads(line) for line in start.splitlines()[:_TOLD_REJECTS]]
    told = [f"{one['source']} {one['place']}: {one['reason']}, {one['detail']}" for one in first]
    return f"{'; '.join(told)}; {folder.path(REJECTS_NAME)} lists all of them" if told else ""


def _check(folder: Storage, plan: Plan, manifest: Manifest, first_rejects: str) -> None:
    """Raise a DataError if a requested category is missing, or the shards cannot be trained on."""
    wanted = plan.options.categories
    if wanted is not None:
        missing = set(wanted) - set(manifest.categories)
        words: set[str] = set()
        for number in range(len(plan.parts)):
            words.update(folder.content(part_file(number, "words")).decode().splitlines())
        why = f"; the first rejects: {first_rejects}" if first_rejects else ""
        for name in sorted(missing & words):
            raise DataError(f"all drawings of category {name!r} were rejected or skipped{why}")
        refuse_missing_categories(missing, words.union(plan.file_categories, manifest.categories), why)
    if manifest.moments.count == 0:
        rejected = ", ".join(f"{count} {reason}" for reason, count in manifest.rejected.items()) or "none"
        what = f"all {manifest.num_read} drawings were rejected or skipped"
        if manifest.num_accepted:
            what = f"none of the {manifest.num_accepted} drawings taken is in the training split"
        advice = f"the first: {first_rejects}" if first_rejects else "add more drawings"
        raise DataError(f"{what} (rejected: {rejected}); {advice}")
    if manifest.scale == 0:
        raise DataError(
            "all offsets of the training drawings are equal, so they cannot be normalised; use real drawings"
        )


def refuse_foreign_shards(folder: Storage, names: Set[str]) -> None:
    """Raise a DataError if a folder, given its file names, holds shards but no file that every build and merge writes
    before its first shard."""
    shards = sorted(filter(_SHARD_NAME.fullmatch, names))
    if shards and not names & {FILE_NAME, PLAN_NAME, REJECTS_NAME}:
        raise DataError(f"{folder.location} holds {shards[0]}, which no build or merge wrote; choose another folder")


def clear(folder: Storage) -> None:
    """Remove the shards with their manifest, plan and parts, and leftovers of killed processes; keep the rejects."""
    # Remove the manifest first: without it the folder counts as incomplete, whatever happens next. Remove the plan
    # last: it identifies the shards as those of a build.
    folder.remove_file(FILE_NAME)
    for name in sorted(filter(_SHARD_NAME.fullmatch, folder.sizes())):
        folder.remove_file(name)
    _remove_parts(folder)
    folder.remove_file(PLAN_NAME)


def _remove_parts(folder: Storage) -> None:
    """Remove the intermediate files of a build."""
    for name in filter(_PART_FILE.fullmatch, folder.sizes(PARTS)):
        folder.remove_file(f"{PARTS}/{name}")
    folder.remove_partial(PARTS, "")
    folder.remove_partial("", *_BEGINNINGS)
    folder.remove_if_empty(PARTS)
