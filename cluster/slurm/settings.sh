# shellcheck shell=bash
# What the batch scripts run: to be edited, or given in the environment of sbatch. Every path is one that all nodes share.
: "${FER_SEARCH_HOME:=$SLURM_SUBMIT_DIR}" # a checkout: sbatch is called in it
: "${VENV:=$FER_SEARCH_HOME/.venv}"
: "${RUNS:=$FER_SEARCH_HOME/runs}"
: "${NAME:=first}"
: "${SPACE:=$FER_SEARCH_HOME/search_spaces/full.toml}"
: "${DATA:=synthetic}"
: "${SCRATCH:=/tmp}" # on each node, for Ray; a short path, since its sockets are there
: "${OPTIONS:=}" # more of fer-search search, such as "--trials 100 epochs=30"; with GPUs each trial takes one by itself

# Of the time between Slurm's warning (--signal in the scripts) and the end: how long the epochs that run may take.
: "${FINISH_SECONDS:=480}"

export PATH="$VENV/bin:$PATH" FER_SEARCH_RUNS="$RUNS" SCRATCH_DIRECTORY="$SCRATCH/fer_search_$SLURM_JOB_ID"
is_time_up=0

# Become the search NAME: begin it, or go on with it where it is, after a requeue, after a failure, or when it is submitted
# again. The words are options of both, such as --address.
search() {
    local options
    if [ -e "$RUNS/$NAME/settings.json" ]; then
        exec fer-search resume "$NAME" "$@"
    fi
    read -r -a options <<<"$OPTIONS"
    exec fer-search search "$SPACE" --name "$NAME" --data "$DATA" "${options[@]}" "$@"
}

# Run `search` so that signals reach it, and return its code. Slurm's warning that time is nearly up (USR1) lets every trial
# finish its epoch; TERM, of a preemption or of scancel --batch --signal=TERM, gives them the 20 s that Slurm allows.
run_search() {
    local code=0
    set -m # else it would ignore SIGINT, and hear of signals to this script's group
    search "$@" &
    driver=$!
    set +m
    trap end_in_time USR1
    trap 'kill -TERM "$driver" 2>/dev/null || true' TERM INT
    while kill -0 "$driver" 2>/dev/null; do
        wait "$driver" || true # a signal to this script ends it, too
    done
    wait "$driver" || code=$?
    return "$code"
}

# shellcheck disable=SC2317 # called by a trap
end_in_time() {
    is_time_up=1
    kill -INT "$driver" 2>/dev/null || true
    (sleep "$FINISH_SECONDS" && kill -TERM "$driver") 2>/dev/null & # past the end nothing goes back into the queue
}

# The last thing that a script does, given its code: Slurm kills what is left of a job that goes back into the queue.
requeue_if_time_is_up() {
    if [ "$is_time_up" = 1 ] && [ "$1" != 0 ]; then
        echo "time is up: the job goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
}
