"""How far a build is, told from its folder alone: begun, its parts finished one after another, and finished."""

import json
import re
from collections.abc import Set

from sgloc.data.build.part import PARTS, part_file
from sgloc.data.build.plan import Plan, refuse_missing_categories
from sgloc.data.manifest import FILE_NAME, SPLITS, Manifest, join_manifests, parse_manifest
from sgloc.errors import DataError
from sgloc.storage import Storage

# Which plan a folder is, or was, built by.
PLAN_NAME = "plan.sha256"
REJECTS_NAME = "rejects.ndjson"
# The shards of earlier versions have no part in their name.
_SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}(-\d{{5,}})?\.tar")
_BEGINNINGS = (PLAN_NAME, FILE_NAME, REJECTS_NAME, *(f"{split}-" for split in SPLITS))
_PART_FILE = re.compile(r"\d{5,}\.(json|rejects|words)")
# How many rejects an error tells.
_TOLD_REJECTS = 3


def begin(folder: Storage, plan: Plan, *, overwrite: bool, is_task: bool) -> Manifest | None:
    """Make a folder ready for a build, or for going on with it.

    Returns:
        The manifest, if nothing is left to do: a killed build had but to tidy up, or other tasks have done it all.

    Raises:
        DataError: if it holds finished shards or a build of another plan, which may be replaced only when asked for, or
            shards that no build wrote.
        OSError: if it cannot be written to.
    """
    # The names last: other tasks may be ending the build.
    is_same = not overwrite and _has_plan(folder, plan)
    names = folder.sizes().keys()
    if not overwrite:
        if is_same and FILE_NAME in names and (is_task or PARTS in names):
            return _end(folder)
        if FILE_NAME in names:
            raise DataError(
                f"{folder.location} already holds shards; give another folder, or overwrite them to build them again"
            )
        if PLAN_NAME in names and not is_same:
            raise DataError(
                f"{folder.location} holds an unfinished build of other sources or with other options; give those to "
                "go on with it, overwrite it to start anew, or give another folder"
            )
    refuse_foreign_shards(folder, names)
    # What a task finds here may be what another has written since it looked: tasks begin in the same moment.
    if not is_same and not is_task:
        clear(folder)
    folder.make_folder(PARTS)
    folder.write(PLAN_NAME, [plan.digest])
    # The others may have ended it since this task looked.
    return _end(folder) if is_task and is_finished(folder, plan) else None


def _has_plan(folder: Storage, plan: Plan) -> bool:
    """Whether the build in the folder is of this plan."""
    try:
        return folder.content(PLAN_NAME) == plan.digest
    except FileNotFoundError:
        return False


def is_finished(folder: Storage, plan: Plan) -> bool:
    """Whether the folder holds finished shards of the same plan."""
    return FILE_NAME in folder.sizes() and _has_plan(folder, plan)


def _end(folder: Storage) -> Manifest:
    """Remove what only an unfinished build needs; gives the manifest."""
    _remove_parts(folder)
    return parse_manifest(folder.content(FILE_NAME), f"{folder.location}/{FILE_NAME}")


def finished_parts(folder: Storage, plan: Plan) -> dict[int, Manifest]:
    """The parts that are built, their shards all there and of the right sizes."""
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
    """Write the manifest when all parts are built; any number of processes may do so at once.

    Returns:
        The manifest, or how many parts are missing.

    Raises:
        DataError: if a category does not occur, or nothing is left to train on; the folder is then cleared.
        OSError: if it cannot be written to.
    """
    parts = finished_parts(folder, plan)
    try:
        if len(parts) == len(plan.parts):
            return _join(folder, plan, [parts[number] for number in range(len(parts))])
    except FileNotFoundError:
        # Another process that finishes the same build may have got further, and tidied up.
        if not is_finished(folder, plan):
            raise
    return _end(folder) if is_finished(folder, plan) else len(plan.parts) - len(parts)


def _join(folder: Storage, plan: Plan, parts: list[Manifest]) -> Manifest:
    manifest = join_manifests(parts)
    first_rejects = _write_rejects(folder, len(parts))
    try:
        _check(folder, plan, manifest, first_rejects)
    except DataError:
        # Going on with these parts would end no better. What was rejected stays, for the user to read.
        clear(folder)
        if not first_rejects:
            folder.remove_file(REJECTS_NAME)
        raise
    folder.write(FILE_NAME, [manifest.to_json().encode()])
    _remove_parts(folder)
    return manifest


def _write_rejects(folder: Storage, num_parts: int) -> str:
    """Join the parts' rejects into one file; what is to be said of the first."""
    start = b""
    with folder.create(REJECTS_NAME) as write:
        for number in range(num_parts):
            for content in folder.pieces(part_file(number, "rejects")):
                write(content)
                start = start or content
    first = [json.loads(line) for line in start.splitlines()[:_TOLD_REJECTS]]
    told = [f"{one['source']} {one['place']}: {one['reason']}, {one['detail']}" for one in first]
    return f"{'; '.join(told)}; {folder.path(REJECTS_NAME)} lists all" if told else ""


def _check(folder: Storage, plan: Plan, manifest: Manifest, first_rejects: str) -> None:
    """Raise a DataError if the shards are not what was asked for, or nothing can be trained on them."""
    wanted = plan.options.categories
    if wanted is not None:
        missing = set(wanted) - set(manifest.categories)
        words: set[str] = set()
        for number in range(len(plan.parts)):
            words.update(folder.content(part_file(number, "words")).decode().splitlines())
        why = f"; the first rejects: {first_rejects}" if first_rejects else ""
        for name in sorted(missing & words):
            raise DataError(f"no drawing of category {name!r} could be taken: all were rejected or skipped{why}")
        refuse_missing_categories(missing, words.union(plan.file_categories, manifest.categories), why)
    if manifest.moments.count == 0:
        rejected = ", ".join(f"{count} {reason}" for reason, count in manifest.rejected.items()) or "none"
        what = f"all {manifest.num_read} drawings were rejected or skipped"
        if manifest.num_accepted:
            what = f"none of the {manifest.num_accepted} drawings taken is in the training split"
        advice = f"the first: {first_rejects}" if first_rejects else "give more drawings"
        raise DataError(f"{what} (rejected: {rejected}); {advice}")
    if manifest.scale == 0:
        raise DataError(
            "all offsets of the training drawings are equal, so they cannot be normalised; give real drawings"
        )


def refuse_foreign_shards(folder: Storage, names: Set[str]) -> None:
    """Raise a DataError if there are shards among the names of a folder's files, but nothing that comes before them in
    every build and merge."""
    shards = sorted(filter(_SHARD_NAME.fullmatch, names))
    if shards and not names & {FILE_NAME, PLAN_NAME, REJECTS_NAME}:
        raise DataError(f"{folder.location} holds {shards[0]}, which no build or merge wrote; give another folder")


def clear(folder: Storage) -> None:
    """Remove shards, all that tells of them but the rejects, and what killed processes left."""
    # The manifest goes first: without it the folder is not complete, whatever happens next. As long as the plan is
    # there, the shards are known to be a build's.
    folder.remove_file(FILE_NAME)
    for name in sorted(filter(_SHARD_NAME.fullmatch, folder.sizes())):
        folder.remove_file(name)
    _remove_parts(folder)
    folder.remove_file(PLAN_NAME)


def _remove_parts(folder: Storage) -> None:
    """Remove what only an unfinished build needs."""
    for name in filter(_PART_FILE.fullmatch, folder.sizes(PARTS)):
        folder.remove_file(f"{PARTS}/{name}")
    folder.remove_partial(PARTS, "")
    folder.remove_partial("", *_BEGINNINGS)
    folder.remove_if_empty(PARTS)
