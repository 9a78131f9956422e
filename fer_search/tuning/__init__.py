"""The search over any objective: space, searcher, scheduler, trials, journal. Knows no torch, no MLflow, no faces."""
