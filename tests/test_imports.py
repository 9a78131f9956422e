"""The architecture's import rules, proven in fresh processes."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "mlflow", "optuna", "pandas")
RULES = [
    (
        HEAVY,
        "fer_search fer_search.recipe fer_search.journal fer_search.costs fer_search.row_selection fer_search.status "
        "fer_search.data.soft_labels fer_search.data.label_noise fer_search.rank_agreement fer_search.jobs.command "
        "fer_search.training.metrics fer_search.training.paired fer_search.training.ensemble_selection "
        "fer_search.tracking_process fer_search.tracking_state fer_search.tracking_links",
    ),
    ((*HEAVY, "fer_search.training", "fer_search.tuning"), "fer_search.checkpoints"),
    ((*HEAVY, "sklearn", "scipy"), "fer_search.tuning.forests"),
    ((*HEAVY, "numpy"), "fer_search.cli fer_search.configuration fer_search.completion"),
    (("torch", "ray", "mlflow", "pandas", "sklearn"), "fer_search.live"),
    (("torch", "ray", "mlflow", "pandas", "sklearn", "scipy.stats"), "fer_search.html_report.report"),
    (("torch", "ray", "mlflow", "pandas", "sklearn", "scipy.stats", "matplotlib"), "fer_search.search_result"),
    (
        ("torch", "ray", "mlflow", "optuna", "fer_search.tuning"),
        "fer_search.data.fer2013 fer_search.data.splits fer_search.report_calibration fer_search.report_choice "
        "fer_search.report_importance fer_search.report_status",
    ),
    (
        ("torch", "ray", "mlflow", "optuna", "fer_search.training", "fer_search.tuning"),
        "fer_search.distillation fer_search.predict",
    ),
    (("torch", "ray", "optuna", "fer_search.training", "fer_search.tuning"), "fer_search.served_model"),
    (
        ("torch", "ray", "mlflow", "fer_search.training.trainer"),
        "fer_search.candidates fer_search.html_report.notebook",
    ),
    (("torch", "ray", "fer_search.training.trainer"), "fer_search.sync"),
    (("torch", "mlflow", "fer_search.training"), "fer_search.objective_search"),
    (("ray", "optuna", "mlflow", "fer_search.tuning", "fer_search.tracking"), "fer_search.training.trainer"),
    (
        ("ray", "optuna", "mlflow", "fer_search.tuning"),
        "fer_search.cross_fitting fer_search.training.objective fer_search.training.run fer_search.trainings",
    ),
    (
        ("torch", "mlflow", "fer_search.training", "fer_search.data", "fer_search.recipe"),
        "fer_search.tuning.run fer_search.tuning.space fer_search.tuning.select fer_search.tuning.importance",
    ),
    (("torch", "ray", "mlflow", "fer_search.training", "fer_search.tradeoffs"), "fer_search.tuning.state"),
    (("torch", "ray", "mlflow", "fer_search.training", "fer_search.recipe"), "fer_search.tuning.exhaustive"),
    (
        ("torch", "ray", "mlflow", "fer_search.training", "fer_search.data", "fer_search.workflow"),
        "fer_search.simulate",
    ),
    (("torch", "ray", "mlflow", "fer_search.training", "fer_search.tuning", "pandas"), "fer_search.study_mirror"),
    (
        ("torch", "mlflow", "optuna", "fer_search.tuning", "fer_search.training"),
        "fer_search.jobs.client fer_search.jobs.doctor",
    ),
    (
        ("torch", "ray", "fer_search.training", "fer_search.tuning", "fer_search.data"),
        "fer_search.tracking_writer fer_search.tracking",
    ),
]
"""What must not be loaded, and by which modules."""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def loaded(modules, forbidden):
    """Return what is loaded of the forbidden once the modules are."""
    done = run(f"import sys, {','.join(modules)}; print(*(name for name in {forbidden!r} if name in sys.modules))")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("forbidden", "modules"), RULES)
def test_modules_load_nothing_from_beyond_their_side(forbidden, modules):
    """All of them in one process; only where something is found is each asked alone, to name it."""
    names = modules.split()
    assert loaded(names, forbidden) == [], {module: loaded([module], forbidden) for module in names}


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
