#!/bin/bash
# Trains on as many nodes and GPUs as sbatch is asked for, until training is finished: stopped by its time limit, by
# another job or by the loss of a node, it is queued again and goes on from where it was. From the folder that holds
# .venv, or with an environment active:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 slurm/train.sh --config configs/all345.yaml
#
# All options after the script's name are those of `sgloc train`; those before it override the lines below. On each node
# there are as many processes as the job has GPUs there; without GPUs, as --ntasks-per-node says, else one.
# --train.run is to be a folder or URL that all nodes see. `scancel --batch --signal=USR1 JOB` has a job save and
# queue again; `scancel JOB` ends it, and submitting the same again goes on.

#SBATCH --job-name=sgloc-train
#SBATCH --nodes=1
# Between two saves of the job's own accord; training may take any multiple of it.
#SBATCH --time=24:00:00
# The shell below, and nobody else, is told so many seconds before the time is up. Saving is to take less.
#SBATCH --signal=B:USR1@120
# Slurm queues it again when a node is lost or another job takes its nodes.
#SBATCH --requeue
# What was said before is kept.
#SBATCH --open-mode=append
#SBATCH --output=sgloc-train-%j.log

set -euo pipefail

# So often training may fail in a row without having come to a new checkpoint.
most_failures=3
# A shorter time limit leaves little between the start and the signal, which may come a minute early.
least_minutes=10
# Who is stopped so late and has saved nothing cannot save.
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

# Slurm runs a copy of this script from its spool, so what is beside it is found from where it was submitted.
cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v sgloc >/dev/null || fail "there is no sgloc: $SLURM_SUBMIT_DIR has no .venv, and no environment with sgloc is active; submit from where it is"

# Until Slurm stops the job; a year when it does not tell.
seconds_left() {
    local end
    end=$(scontrol show job "$SLURM_JOB_ID" | grep --only-matching 'EndTime=[0-9][^ ]*') || end="EndTime=1 year"
    echo $(($(date --date="${end#EndTime=}" +%s) - EPOCHSECONDS))
}

# The newest checkpoint of the run; nothing when there is none.
newest_checkpoint() {
    # A store that does not answer is not waited for.
    timeout 120 sgloc checkpoint list "$run_dir" --newest 2>/dev/null || true
}

# What this script was asked by which signal, whom it is to ask in turn, and who sees to it that this ends.
asked=''
step=''
guard=''

# shellcheck disable=SC2329  # The traps below call it.
ask() {
    asked=$1
    [[ -n $step ]] || return 0
    # srun gives it to one process a node, which gives it to its ranks.
    kill -USR1 "$step" 2>/dev/null || true
    if [[ -z $guard ]]; then
        # Whatever hangs is not to keep the job from being queued again; what is saved by then is whole.
        { sleep "$(($(seconds_left) - 20))" && kill -KILL "$step"; } 2>/dev/null &
        guard=$!
    fi
}
trap 'ask USR1' USR1
trap 'ask TERM' TERM

requeue() {
    # Slurm has ended the job, and queues it again itself if there is reason to.
    [[ $asked != TERM ]] || exit 143
    # What was cancelled is not to come back.
    scontrol show job "$SLURM_JOB_ID" | grep --quiet 'JobState=RUNNING' || exit 143
    say "$1; the job is queued again"
    # Slurm ends the job as soon as it is queued again, and scontrol with it.
    scontrol requeue "$SLURM_JOB_ID" || (($? > 128)) || fail "it cannot be queued again; submit the same command, and it goes on" 1
    exit 0
}

run_dir=$(python -m launch.command train "$@") || exit
# A URL may hold a password, which is not to be in a log.
# shellcheck disable=SC2001
shown_dir=$(sed 's#://[^/]*@#://***@#' <<<"${run_dir%%\?*}")
left=$(seconds_left)
((left > least_minutes * 60 - 30)) || fail "the time limit leaves $left seconds; give sbatch --time=$least_minutes or more minutes, for a run is told to save 120 seconds before the end, and queued again"

address=$(scontrol show node "$SLURMD_NODENAME" | grep --only-matching 'NodeAddr=[^ ]*') ||
    fail "scontrol does not tell the address of $SLURMD_NODENAME" 1
# One process a node takes all that the job has there, of which nodes may have different numbers.
cpus=$(tr ',' '\n' <<<"${SLURM_JOB_CPUS_PER_NODE}" | sed 's/(.*//' | sort --numeric-sort | head -n 1)
# And all GPUs, of which there are else one task's.
gpus=()
[[ -z ${SLURM_GPUS_PER_TASK:-} ]] || gpus=("--gpus-per-node=$SLURM_GPUS_ON_NODE")
unset SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU

say "job $SLURM_JOB_ID on $SLURM_JOB_NUM_NODES node(s), start ${SLURM_RESTART_COUNT:-0}, in $shown_dir"
# Where a node whose ranks ended with a mistake or a fault says so: srun tells the exit code of those that it ends itself.
verdict=$SLURM_SUBMIT_DIR/.sgloc-train-$SLURM_JOB_ID
rm -f "$verdict"
trap 'rm -f "$verdict"' EXIT
at_start=$(newest_checkpoint)
before=$at_start
attempts=0
failures=0
while [[ -z $asked ]]; do
    # One port for each job on these nodes; another each time, lest somebody else has it.
    port=$((20000 + (SLURM_JOB_ID + 997 * attempts++) % 10000))
    # Ranks are started again from here, not by torchrun: its agents, when they do not choose their numbers themselves,
    # do not tell each other of it.
    # shellcheck disable=SC2016
    SGLOC_VERDICT=$verdict srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$cpus" \
        "${gpus[@]}" --kill-on-bad-exit=1 bash -c '
            processes=${SLURM_GPUS_ON_NODE:-$1} nodes=$2 meeting=$3
            exec python -m launch.local --processes "$processes" --nodes "$nodes" --node-rank "$SLURM_NODEID" \
                --rendezvous "$meeting" --max-restarts 0 train "${@:4}"' \
        train "${SLURM_NTASKS_PER_NODE:-1}" "$SLURM_JOB_NUM_NODES" "${address#NodeAddr=}:$port" "$@" &
    step=$!
    # It may have been asked just before.
    [[ -z $asked ]] || ask "$asked"
    while true; do
        # A signal ends the waiting, not the step.
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
        # Before Slurm takes nodes away, it may tell the ranks alone to end, and so may people: before there is a
        # checkpoint, too, of which 2 tells.
        finished=0
        sgloc checkpoint list "$run_dir" --finished || finished=$?
        ((finished == 0 || finished > 2)) || requeue "training was stopped"
        exit "$finished"
    elif ((status == 2 || status == 3)); then
        # A mistake, or a fault of the program.
        fail "what is wrong stands above; it would be wrong again" "$status"
    fi
    if ! timeout 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" true; then
        requeue "a node does not answer"
    fi
    after=$(newest_checkpoint)
    if [[ $after == "$before" ]]; then
        ((++failures < most_failures)) || fail "training failed $failures times without a new checkpoint" 1
    else
        failures=0
        before=$after
    fi
    say "training ended with exit code $status; it is started again from ${after:-the beginning}"
done

if [[ $asked == USR1 ]] && ((SECONDS > start_seconds)) && [[ $(newest_checkpoint) == "$at_start" ]]; then
    fail "nothing was saved in $SECONDS seconds; see above, or give sbatch a longer --time" 1
fi
requeue "training was asked to stop"
