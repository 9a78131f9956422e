#!/usr/bin/env bash
# Start the MLflow server that searches are tracked by: on PostgreSQL, with authentication, for the hosts that are named.
# Its settings and secrets come from the environment; none is written on a command line.
#
#     PGHOST, PGPORT, PGUSER, PGPASSWORD   PostgreSQL with the databases mlflow and mlflow_auth
#     ARTIFACTS                            where bundles go: a directory, or s3://bucket/path, gs://bucket/path
#     MLFLOW_AUTH_ADMIN_USERNAME, MLFLOW_AUTH_ADMIN_PASSWORD   the first user, made at the first start
#     MLFLOW_FLASK_SERVER_SECRET_KEY       random, the same for every copy of the server
#     MLFLOW_SERVER_ALLOWED_HOSTS          the names that it is called by, such as mlflow:5000,localhost:5000
#     HOST, PORT, WORKERS                  default: 127.0.0.1, 5000, 2
set -euo pipefail
for name in PGHOST PGUSER ARTIFACTS MLFLOW_AUTH_ADMIN_USERNAME MLFLOW_AUTH_ADMIN_PASSWORD \
    MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_SERVER_ALLOWED_HOSTS; do
    [ -n "${!name:-}" ] || {
        echo "serve.sh: $name: must be in the environment" >&2
        exit 2
    }
done

umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = READ
database_uri = postgresql:///mlflow_auth
END
export MLFLOW_AUTH_CONFIG_PATH
# Jobs of the server's own, such as evaluations, which nothing here asks for.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

exec mlflow server --app-name basic-auth \
    --backend-store-uri postgresql:///mlflow --artifacts-destination "$ARTIFACTS" \
    --host "${HOST:-127.0.0.1}" --port "${PORT:-5000}" --workers "${WORKERS:-2}"
