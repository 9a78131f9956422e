"""The architecture's import rules, each proven in a fresh process."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "mlflow", "optuna", "pandas")
RULES = {
    "fer_search": HEAVY,
    "fer_search.recipe": HEAVY,
    "fer_search.journal": HEAVY,
    "fer_search.costs": HEAVY,
    "fer_search.row_selection": HEAVY,
    "fer_search.checkpoints": (*HEAVY, "fer_search.training", "fer_search.tuning"),
    "fer_search.search_result": ("torch", "ray", "mlflow", "pandas", "sklearn", "scipy.stats", "matplotlib"),
    "fer_search.html_report.report": ("torch", "ray", "mlflow", "pandas", "sklearn", "scipy.stats"),
    "fer_search.live": ("torch", "ray", "mlflow", "pandas", "sklearn"),
    "fer_search.cli": (*HEAVY, "numpy"),
    "fer_search.configuration": (*HEAVY, "numpy"),
    "fer_search.completion": (*HEAVY, "numpy"),
    "fer_search.data.fer2013": ("torch", "ray", "mlflow", "optuna"),
    "fer_search.data.splits": ("torch", "ray", "mlflow", "optuna"),
    "fer_search.data.soft_labels": HEAVY,
    "fer_search.data.label_noise": HEAVY,
    "fer_search.distillation": ("torch", "ray", "mlflow", "optuna", "fer_search.training", "fer_search.tuning"),
    "fer_search.cross_fitting": ("ray", "optuna", "mlflow", "fer_search.tuning"),
    "fer_search.rank_agreement": HEAVY,
    "fer_search.report_calibration": ("torch", "ray", "mlflow", "optuna", "fer_search.tuning"),
    "fer_search.objective_search": ("torch", "mlflow", "fer_search.training"),
    "fer_search.html_report.notebook": ("torch", "ray", "mlflow"),
    "fer_search.predict": ("torch", "ray", "mlflow", "optuna", "fer_search.training", "fer_search.tuning"),
    "fer_search.training.metrics": HEAVY,
    "fer_search.training.paired": HEAVY,
    "fer_search.training.ensemble_selection": HEAVY,
    "fer_search.candidates": ("torch", "ray", "mlflow", "fer_search.training.trainer"),
    "fer_search.training.trainer": ("ray", "optuna", "mlflow", "fer_search.tuning", "fer_search.tracking"),
    "fer_search.training.objective": ("ray", "optuna", "mlflow", "fer_search.tuning"),
    "fer_search.training.run": ("ray", "optuna", "mlflow", "fer_search.tuning"),
    "fer_search.trainings": ("ray", "optuna", "mlflow", "fer_search.tuning"),
    "fer_search.tuning.run": ("torch", "mlflow", "fer_search.training", "fer_search.data", "fer_search.recipe"),
    "fer_search.tuning.space": ("torch", "mlflow", "fer_search.training", "fer_search.data", "fer_search.recipe"),
    "fer_search.tuning.select": ("torch", "mlflow", "fer_search.training", "fer_search.data", "fer_search.recipe"),
    "fer_search.tuning.state": ("torch", "ray", "mlflow", "fer_search.training", "fer_search.tradeoffs"),
    "fer_search.tuning.importance": ("torch", "mlflow", "fer_search.training", "fer_search.data", "fer_search.recipe"),
    "fer_search.tuning.exhaustive": ("torch", "ray", "mlflow", "fer_search.training", "fer_search.recipe"),
    "fer_search.simulate": ("torch", "ray", "mlflow", "fer_search.training", "fer_search.data", "fer_search.workflow"),
    "fer_search.study_mirror": ("torch", "ray", "mlflow", "fer_search.training", "fer_search.tuning", "pandas"),
    "fer_search.report_choice": ("torch", "ray", "mlflow", "optuna", "fer_search.tuning"),
    "fer_search.report_importance": ("torch", "ray", "mlflow", "optuna", "fer_search.tuning"),
    "fer_search.status": HEAVY,
    "fer_search.jobs.command": HEAVY,
    "fer_search.jobs.client": ("torch", "mlflow", "optuna", "fer_search.tuning", "fer_search.training"),
    "fer_search.jobs.doctor": ("torch", "mlflow", "optuna", "fer_search.tuning", "fer_search.training"),
    "fer_search.report_status": ("torch", "ray", "mlflow", "optuna", "fer_search.tuning"),
    "fer_search.tracking_process": HEAVY,
    "fer_search.tracking_state": HEAVY,
    "fer_search.tracking_writer": ("torch", "ray", "fer_search.training", "fer_search.tuning", "fer_search.data"),
    "fer_search.tracking_links": HEAVY,
    "fer_search.served_model": ("torch", "ray", "optuna", "fer_search.training", "fer_search.tuning"),
    "fer_search.tracking": ("torch", "ray", "fer_search.training", "fer_search.tuning", "fer_search.data"),
}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", RULES)
def test_a_module_loads_nothing_from_beyond_its_side(module):
    done = run(f"import sys, {module}; print(*(name for name in {RULES[module]!r} if name in sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_recipe_trains_where_ray_optuna_and_mlflow_are_not_installed():
    done = run(
        """
import sys
for name in ("ray", "optuna", "mlflow"):
    sys.modules[name] = None
import torch
from fer_search.data.synthetic import synthesize
from fer_search.recipe import Recipe
from fer_search.training.trainer import Trainer
faces = synthesize(60)
recipe = Recipe().replace({"backbone": "test_efficientnet", "pretrained": False, "stem_stride": 2, "epochs": 4})
print(len(list(Trainer(recipe, faces, faces, device=torch.device("cpu")))))
"""
    )
    assert done.stdout.strip() == "4", done.stderr


def test_every_public_name_is_the_thing_itself_whatever_was_imported_before():
    code = """
import types, fer_search, fer_search.workflow, fer_search.bundle, fer_search.tuning.run
names = {name: getattr(fer_search, name) for name in fer_search.__all__}
print([name for name, value in names.items() if isinstance(value, types.ModuleType)], callable(fer_search.search))
"""
    assert run(code).stdout.strip() == "[] True"
