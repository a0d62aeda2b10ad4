#!/bin/bash
# Train on the nodes and GPUs requested from sbatch until training has finished: after the time limit, preemption or the
# loss of a node, the job is requeued and resumes. Submit it from the folder that contains .venv, or with an environment
# active:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 slurm/train.sh --config configs/all345.yaml
#
# Options after the script's name are those of `sgloc train`; sbatch options before it override the lines below. Each
# node runs one process per GPU of the job; without GPUs, --ntasks-per-node processes, by default one.
# --train.run must be a folder or URL that is visible to all nodes. `scancel --batch --signal=USR1 JOB` makes a job save
# and requeue; `scancel JOB` ends it, and submitting the same command again resumes.

#SBATCH --job-name=sgloc-train
#SBATCH --nodes=1
# The time until a job is saved and requeued; training may take any multiple of it.
#SBATCH --time=24:00:00
# Signal only the batch shell, this many seconds before the time limit. Saving must take less.
#SBATCH --signal=B:USR1@120
# Let Slurm requeue the job when a node is lost or the job is preempted.
#SBATCH --requeue
# Keep the log of the time before a requeue.
#SBATCH --open-mode=append
#SBATCH --output=sgloc-train-%j.log

set -euo pipefail

# How often in a row training may fail without writing a new checkpoint.
most_failures=3
# A shorter time limit leaves too little time between the start and the signal, which may come a minute early.
least_minutes=10
# A job stopped this late without any new checkpoint will never manage to save one.
start_seconds=300

say() {
    echo "train.sh: $1" >&2
}

fail() {
    say "$1"
    exit "${2:-2}"
}

usage="submit it with: sbatch --nodes=4 --gpus-per-node=8 slurm/train.sh --config configs/all345.yaml"

[[ -n ${SLURM_JOB_ID:-} ]] || fail "this is not a Slurm job; $usage"
for name in SLURM_SUBMIT_DIR SLURM_JOB_NUM_NODES SLURM_JOB_CPUS_PER_NODE SLURMD_NODENAME; do
    [[ -n ${!name:-} ]] || fail "$name is not set, although this is a Slurm job; $usage"
done
[[ $# -gt 0 ]] || fail "the options of \`sgloc train\` are missing; $usage"

# Slurm runs a copy of this script from its spool folder, so use paths relative to where it was submitted.
cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v sgloc >/dev/null || fail "sgloc was not found: $SLURM_SUBMIT_DIR has no .venv, and no environment with sgloc is active; submit from the folder that contains .venv"

# Seconds until the job's time limit; a year if Slurm does not report it.
seconds_left() {
    local end
    end=$(scontrol show job "$SLURM_JOB_ID" | grep --only-matching 'EndTime=[0-9][^ ]*') || end="EndTime=1 year"
    echo $(($(date --date="${end#EndTime=}" +%s) - EPOCHSECONDS))
}

# The newest checkpoint of the run; empty if there is none.
newest_checkpoint() {
    # Do not wait for a store that does not respond.
    timeout 120 sgloc checkpoint list "$run_dir" --newest 2>/dev/null || true
}

# The stop signal received, the process ID of the srun step, and that of the watchdog that kills a hanging step.
asked=''
step=''
guard=''

# shellcheck disable=SC2329  # The traps below call it.
ask() {
    asked=$1
    [[ -n $step ]] || return 0
    # srun forwards the signal to one process per node, which forwards it to its ranks.
    kill -USR1 "$step" 2>/dev/null || true
    if [[ -z $guard ]]; then
        # A hang must not prevent the requeue. Checkpoints committed by then are intact.
        { sleep "$(($(seconds_left) - 20))" && kill -KILL "$step"; } 2>/dev/null &
        guard=$!
    fi
}
trap 'ask USR1' USR1
trap 'ask TERM' TERM

requeue() {
    # Slurm has ended the job, and requeues it itself if necessary.
    [[ $asked != TERM ]] || exit 143
    # Do not requeue a cancelled job.
    scontrol show job "$SLURM_JOB_ID" | grep --quiet 'JobState=RUNNING' || exit 143
    say "$1; the job is requeued"
    # Slurm ends a requeued job at once, and scontrol with it.
    scontrol requeue "$SLURM_JOB_ID" || (($? > 128)) || fail "the job could not be requeued; submit the same command again to resume" 1
    exit 0
}

run_dir=$(python -m launch.command train "$@") || exit
# A URL may contain a password, which must not appear in a log.
# shellcheck disable=SC2001
shown_dir=$(sed 's#://[^/]*@#://***@#' <<<"${run_dir%%\?*}")
left=$(seconds_left)
((left > least_minutes * 60 - 30)) || fail "the time limit leaves $left seconds; pass sbatch --time=$least_minutes or more minutes, because a run is asked to save 120 seconds before the end, and then requeued"

address=$(scontrol show node "$SLURMD_NODENAME" | grep --only-matching 'NodeAddr=[^ ]*') ||
    fail "scontrol did not report the address of $SLURMD_NODENAME" 1
# One srun task per node uses all CPUs that the job has there; nodes may differ, so take the smallest number.
cpus=$(tr ',' '\n' <<<"${SLURM_JOB_CPUS_PER_NODE}" | sed 's/(.*//' | sort --numeric-sort | head -n 1)
# The srun task uses all GPUs of its node too; with --gpus-per-task it would get those of one task only.
gpus=()
[[ -z ${SLURM_GPUS_PER_TASK:-} ]] || gpus=("--gpus-per-node=$SLURM_GPUS_ON_NODE")
unset SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU

say "job $SLURM_JOB_ID on $SLURM_JOB_NUM_NODES node(s), start ${SLURM_RESTART_COUNT:-0}, in $shown_dir"
# File in which a node records a user error or bug: srun reports the exit code of the tasks that it killed itself.
verdict=$SLURM_SUBMIT_DIR/.sgloc-train-$SLURM_JOB_ID
rm -f "$verdict"
trap 'rm -f "$verdict"' EXIT
at_start=$(newest_checkpoint)
before=$at_start
attempts=0
failures=0
while [[ -z $asked ]]; do
    # A different port for each job on these nodes, and for each attempt, in case the port is taken.
    port=$((20000 + (SLURM_JOB_ID + 997 * attempts++) % 10000))
    # Restart ranks from here, not by torchrun: with fixed node ranks, its agents do not tell each other about restarts.
    # shellcheck disable=SC2016
    SGLOC_VERDICT=$verdict srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$cpus" \
        "${gpus[@]}" --kill-on-bad-exit=1 bash -c '
            processes=${SLURM_GPUS_ON_NODE:-$1} nodes=$2 meeting=$3
            exec python -m launch.local --processes "$processes" --nodes "$nodes" --node-rank "$SLURM_NODEID" \
                --rendezvous "$meeting" --max-restarts 0 train "${@:4}"' \
        train "${SLURM_NTASKS_PER_NODE:-1}" "$SLURM_JOB_NUM_NODES" "${address#NodeAddr=}:$port" "$@" &
    step=$!
    # The signal may have arrived before the step started.
    [[ -z $asked ]] || ask "$asked"
    while true; do
        # A signal interrupts wait, but not the step.
        status=0
        wait "$step" || status=$?
        kill -0 "$step" 2>/dev/null || break
    done
    step=''
    [[ -z $guard ]] || kill "$guard" 2>/dev/null || true
    [[ ! -s $verdict ]] || status=$(<"$verdict")
    if [[ -n $asked ]]; then
        break
    elif ((status == 0)); then
        # A user, or Slurm before a preemption, may have stopped only the ranks. Exit code 2: the run has no checkpoint.
        finished=0
        sgloc checkpoint list "$run_dir" --finished || finished=$?
        ((finished == 0 || finished > 2)) || requeue "training was stopped"
        exit "$finished"
    elif ((status == 2 || status == 3)); then
        # A user error or a bug.
        fail "see the error above; a restart would fail in the same way" "$status"
    fi
    if ! timeout 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" true; then
        requeue "a node does not respond"
    fi
    after=$(newest_checkpoint)
    if [[ $after == "$before" ]]; then
        ((++failures < most_failures)) || fail "training failed $failures times without a new checkpoint" 1
    else
        failures=0
        before=$after
    fi
    say "training ended with exit code $status; restarting from ${after:-the beginning}"
done

if [[ $asked == USR1 ]] && ((SECONDS > start_seconds)) && [[ $(newest_checkpoint) == "$at_start" ]]; then
    fail "no checkpoint was saved in $SECONDS seconds; see above, or pass sbatch a longer --time" 1
fi
requeue "training was asked to stop"
