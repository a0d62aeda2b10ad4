#!/bin/bash
# Measures a trained model on all test drawings: Rec, Ret and distances. From the folder that holds .venv, or with an
# environment active:
#
#   sbatch --ntasks-per-node=8 --gpus-per-node=8 slurm/evaluate.sh --checkpoint runs/all345 --data /scratch/shards \
#     --classifier runs/all345-classifier --out runs/all345/evaluated
#
# All options after the script's name are those of `sgloc evaluate`; those before it override the lines below. Each task is
# a process of its own, with one of the GPUs; any number of them gives the same result. --out is to be a folder or URL that
# outlives the job, and that all nodes see.

#SBATCH --job-name=sgloc-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# It goes on where it was.
#SBATCH --requeue
# What was said before is kept.
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

# Slurm runs a copy of this script from its spool, so what is beside it is found from where it was submitted.
cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v sgloc >/dev/null || fail "there is no sgloc: $SLURM_SUBMIT_DIR has no .venv, and no environment with sgloc is active; submit from where it is"

echo "job $SLURM_JOB_ID on $(hostname), start ${SLURM_RESTART_COUNT:-0}" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 sgloc "$command" "$@"
