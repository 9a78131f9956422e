#!/bin/sh
# PostgreSQL's image runs this once, on an empty volume: MLflow keeps its users in a database of their own.
set -eu
createdb --username "$POSTGRES_USER" mlflow_auth
