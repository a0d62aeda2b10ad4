#!/bin/bash
# Evaluate a trained model on all test drawings: Rec, Ret and distances. Submit it from the folder that contains .venv,
# or with an environment active:
#
#   sbatch --ntasks-per-node=8 --gpus-per-node=8 slurm/evaluate.sh --checkpoint runs/all345 --data /scratch/shards \
#     --classifier runs/all345-classifier --out runs/all345/evaluated
#
# Options after the script's name are those of `sgloc evaluate`; sbatch options before it override the lines below. Each
# task is one process with one GPU; the result is the same for any number of tasks. --out must be a folder or URL that
# outlives the job and is visible to all nodes.

#SBATCH --job-name=sgloc-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# A requeued job resumes.
#SBATCH --requeue
# Keep the log of the time before a requeue.
#SBATCH --open-mode=append
#SBATCH --output=sgloc-evaluate-%j.log

set -euo pipefail

command=evaluate

fail() {
    echo "evaluate.sh: $1" >&2
    exit 2
}

usage="submit it with: sbatch slurm/evaluate.sh --checkpoint runs/all345 --data /scratch/shards --out runs/all345/evaluated"

[[ -n ${SLURM_JOB_ID:-} ]] || fail "this is not a Slurm job; $usage"
for name in SLURM_SUBMIT_DIR SLURM_CPUS_PER_TASK; do
    [[ -n ${!name:-} ]] || fail "$name is not set, although this is a Slurm job; $usage"
done
[[ $# -gt 0 ]] || fail "the options of \`sgloc $command\` are missing; $usage"

# Slurm runs a copy of this script from its spool folder, so use paths relative to where it was submitted.
cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v sgloc >/dev/null || fail "sgloc was not found: $SLURM_SUBMIT_DIR has no .venv, and no environment with sgloc is active; submit from the folder that contains .venv"

echo "job $SLURM_JOB_ID on $(hostname), start ${SLURM_RESTART_COUNT:-0}" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 sgloc "$command" "$@"
