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

export PATH="$VENV/bin:$PATH" FER_SEARCH_RUNS="$RUNS"

# Begin the search NAME, or go on with it where it is: after a requeue, after a failure, or when it is submitted again.
# The words are options of both, such as --address.
search() {
    local options
    if [ -e "$RUNS/$NAME/settings.json" ]; then
        fer-search resume "$NAME" "$@"
    else
        read -r -a options <<<"$OPTIONS"
        fer-search search "$SPACE" --name "$NAME" --data "$DATA" "${options[@]}" "$@"
    fi
}

# Run `search` so that signals reach it. Slurm's warning that time is nearly up (USR1, see --signal) lets every trial finish
# its epoch, and then the job goes back into the queue; scancel --batch --signal=TERM stops it likewise, for good.
run_search() {
    local code=0
    is_time_up=0
    search "$@" &
    driver=$!
    trap 'is_time_up=1; stop_driver' USR1
    trap stop_driver TERM INT
    while kill -0 "$driver" 2>/dev/null; do
        code=0
        wait "$driver" || code=$?
    done
    if [ "$is_time_up" = 1 ] && [ "$code" != 0 ]; then
        echo "time is up: the job goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}

# shellcheck disable=SC2317 # called by traps
stop_driver() {
    pkill -TERM -P "$driver" || true
}
