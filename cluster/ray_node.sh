#!/usr/bin/env bash
# Start this machine's part of a Ray cluster, and stay until it ends:
#
#     ray_node.sh head [OPTION OF RAY START]...
#     ray_node.sh worker HEAD_ADDRESS [OPTION OF RAY START]...
#
# What Ray opens are the ports from FIRST_PORT on that are named below, SECURITY.md has the table. Everything else stays
# on loopback: the dashboard and its Jobs API, which run what they are told, are reached through a tunnel.
#
#     RAY_AUTH_TOKEN_PATH   the cluster's token, in a file that only its user may read; the same on every node
#     NODE_ADDRESS          this machine's address in the cluster; default: the first one that it has
#     DETACHED              return once it is up, and leave it running, if this is not empty
#     FIRST_PORT            for a second cluster on the same machines, say 7379; default: 6379
set -euo pipefail

fail() {
    echo "ray_node.sh: $*" >&2
    exit 2
}

role=${1:-}
case "$role" in
head) shift ;;
worker)
    [ $# -ge 2 ] || fail "worker: must name the head's address"
    head=$2
    shift 2
    ;;
*) fail "must be called with head or worker, got '$role'" ;;
esac

: "${RAY_AUTH_TOKEN_PATH:?must name the file of the cluster\'s token}"
[ -r "$RAY_AUTH_TOKEN_PATH" ] || fail "RAY_AUTH_TOKEN_PATH: must be readable, got $RAY_AUTH_TOKEN_PATH"
case "$(stat -Lc %a "$RAY_AUTH_TOKEN_PATH")" in
400 | 600) ;;
*) fail "RAY_AUTH_TOKEN_PATH: must be readable by its owner alone (chmod 600), got $(stat -Lc %A "$RAY_AUTH_TOKEN_PATH")" ;;
esac
# Without it Ray asks for no token.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH
# Both listen for metrics on every interface, and ask for no token.
export AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
export RAY_USAGE_STATS_ENABLED=0

address=${NODE_ADDRESS:-$(hostname -I | cut -d ' ' -f 1)}
[ -n "$address" ] || fail "NODE_ADDRESS: must be given, since this machine has no address of its own"
first=${FIRST_PORT:-6379}
options=(
    --node-ip-address="$address"
    --node-manager-port=$((first + 1))
    --object-manager-port=$((first + 2))
    --runtime-env-agent-port=$((first + 3))
    --dashboard-agent-grpc-port=$((first + 4))
    --dashboard-agent-listen-port=$((first + 5))
    --metrics-export-port=$((first + 6))
    --min-worker-port=$((first + 10))
    --max-worker-port=$((first + 509))
    --disable-usage-stats
)
if [ "$role" = head ]; then
    options+=(
        --head --port="$first" --ray-client-server-port=$((first + 7))
        --dashboard-host=127.0.0.1 --dashboard-port="${DASHBOARD_PORT:-8265}"
    )
else
    options+=(--address="$head:$first")
fi
[ -z "${DETACHED:-}" ] || exec ray start "${options[@]}" "$@"

# Ray gives a node 30 s to come up, which is little on a busy machine or with Python on a file system across a network:
# one that ends within two minutes is started again, twice. With --block all of it ends with `ray start`.
ended=
trap 'ended=1; kill -TERM "$node" 2>/dev/null || true' TERM INT
for _ in 1 2 3; do
    SECONDS=0 code=0
    set -m # else it would ignore SIGINT, as would all that it starts
    ray start --block "${options[@]}" "$@" &
    node=$!
    set +m
    while kill -0 "$node" 2>/dev/null; do
        wait "$node" || true # a signal to this script ends it, too
    done
    wait "$node" || code=$?
    if [ "$code" = 0 ] || [ -n "$ended" ] || [ "$SECONDS" -ge 120 ]; then break; fi
done
exit "$code"
