"""Searches as jobs of a Ray cluster: checked there, submitted, followed, stopped. Loads neither torch nor MLflow."""

COLUMNS = "FER_SEARCH_COLUMNS"
"""The variable that tells a job how wide the terminal is that shows what it prints."""
