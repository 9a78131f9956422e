#!/usr/bin/env bash
# A node's task: run a command with SCRATCH_DIRECTORY for it, which ends with it, also where the job is preempted.
set -euo pipefail
rm -rf "$SCRATCH_DIRECTORY"
mkdir -m 700 "$SCRATCH_DIRECTORY" # what Ray makes in it, sockets too, it opens to every user of the node
trap 'rm -rf "$SCRATCH_DIRECTORY"' EXIT
trap : TERM # the command gets it too, and is waited for
"$@"
