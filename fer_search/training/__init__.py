"""One training run of one recipe: augmentation, network, SAM, OneCycle, evaluation. Knows no Ray, Optuna or MLflow."""
