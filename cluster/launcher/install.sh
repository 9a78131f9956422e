#!/usr/bin/env bash
# Make the Python environment that Ray and the trials run in on this node, or leave it if it is up to date:
#
#     install.sh [PACKAGE]...
#
# The packages are what the node needs beside the project, such as boto3. An image of a machine on which this has run
# saves every node that starts from it the download of 6 GB.
set -euo pipefail

project=$(cd "$(dirname "$0")/../.." && pwd)
environment=$project/.venv
constraints=$project/cluster/constraints.txt
wanted=$({
    cat "$project/pyproject.toml" "$constraints"
    printf '%s\n' "$@"
} | sha256sum)

# Hosts may share a home directory.
exec 9>"$project/.installing"
flock 9
if [ -r "$environment/installed" ] && [ "$(cat "$environment/installed")" = "$wanted" ]; then
    exit 0
fi
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
    echo "install.sh: python3 must be 3.11 to 3.13, got $(python3 --version)" >&2
    exit 2
}
python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check --constraint "$constraints" \
    --editable "${project}[weights]" "$@"
echo "$wanted" >"$environment/installed"
