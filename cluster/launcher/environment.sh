# shellcheck shell=bash
# What Ray, and with it every trial, finds in its environment on a node. To be sourced.
export PATH="$HOME/fer_search/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.fer_search/ray_token"
export FER_SEARCH_RUNS=/mnt/fer_search/runs
# Where MLflow is and what it asks for, as lines NAME=VALUE.
case "$(stat -Lc %a "$HOME/.fer_search/cluster.env")" in
400 | 600) ;;
*)
    echo "cluster.env: must be readable by its owner alone (chmod 600 on the machine that it comes from)" >&2
    exit 2
    ;;
esac
set -a
# shellcheck source=/dev/null
. "$HOME/.fer_search/cluster.env"
set +a
