#!/bin/bash
# Build shards as a Slurm array: each task builds its share of the source files, and the last task to finish writes the
# manifest. The result is byte-identical to that of one `sgloc shard` without --task. Submit it from the folder that
# contains .venv, or with an environment active:
#
#   sbatch --array=0-15 slurm/shard.sh --source quickdraw:simplified --out /scratch/shards
#
# Options after the script's name are those of `sgloc shard`; sbatch options before it override the lines below. --out
# must be a folder or URL that is visible to all nodes.

#SBATCH --job-name=sgloc-shard
# A task is one process tree on one node.
#SBATCH --nodes=1
#SBATCH --ntasks=1
# One worker process per CPU; each packs one category at a time.
#SBATCH --cpus-per-task=4
# A worker needs less than half of this, however large the category.
#SBATCH --mem-per-cpu=2G
# Ample for 345 categories in 16 tasks; a task stopped by the limit resumes when it is submitted again.
#SBATCH --time=12:00:00
# Finished parts are not built again, so a task may be stopped and restarted at any time.
#SBATCH --requeue
# Keep the log of the time before a requeue.
#SBATCH --open-mode=append
#SBATCH --output=sgloc-shard-%A_%a.log

set -euo pipefail

fail() {
    echo "shard.sh: $1" >&2
    exit 2
}

usage="submit it with: sbatch --array=0-15 slurm/shard.sh --source quickdraw:simplified --out /scratch/shards"

[[ -n ${SLURM_JOB_ID:-} ]] || fail "this is not a Slurm job; $usage"
for name in SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_MIN SLURM_ARRAY_TASK_MAX; do
    [[ -n ${!name:-} ]] || fail "$name is not set, so this is not a task of an array; $usage"
done
for name in SLURM_SUBMIT_DIR SLURM_CPUS_PER_TASK; do
    [[ -n ${!name:-} ]] || fail "$name is not set, although this is a Slurm job; $usage"
done
# With a gap in the array, one share would never be built, and the manifest never written.
if ((SLURM_ARRAY_TASK_MIN != 0 || SLURM_ARRAY_TASK_MAX != SLURM_ARRAY_TASK_COUNT - 1)); then
    fail "the array has $SLURM_ARRAY_TASK_COUNT tasks from $SLURM_ARRAY_TASK_MIN to $SLURM_ARRAY_TASK_MAX; it must be --array=0-N without gaps"
fi
[[ $# -gt 0 ]] || fail "the options of \`sgloc shard\` are missing; $usage"

# Slurm runs a copy of this script from its spool folder, so use paths relative to where it was submitted.
cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v sgloc >/dev/null || fail "sgloc was not found: $SLURM_SUBMIT_DIR has no .venv, and no environment with sgloc is active; submit from the folder that contains .venv"

echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT on $(hostname), start ${SLURM_RESTART_COUNT:-0}" >&2
exec sgloc shard "$@" --task "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers "$SLURM_CPUS_PER_TASK"
