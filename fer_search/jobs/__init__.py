"""Searches as jobs of a Ray cluster: checked there, submitted, followed, stopped. Loads neither torch nor MLflow."""
