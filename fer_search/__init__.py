"""fer_search: a distributed hyperparameter search for facial emotion recognition.

The names below are the whole Python API; they are imported when they are first used, so that `import fer_search` loads
neither torch nor Ray. The words are those of the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_search.assessment import evaluate
    from fer_search.bundle_model import load_model
    from fer_search.calibrations import calibrate
    from fer_search.cross_fitting import label_noise
    from fer_search.data.faces import EMOTIONS, Faces
    from fer_search.data.fer2013 import load_faces
    from fer_search.distillation import distill
    from fer_search.errors import InvalidInput
    from fer_search.objective_search import optimize
    from fer_search.predict import Predictor
    from fer_search.recipe import Recipe
    from fer_search.search_result import SearchResult, read_search
    from fer_search.trainings import train
    from fer_search.tuning.connection import Resources
    from fer_search.tuning.limit import Budget
    from fer_search.tuning.objective import Report
    from fer_search.workflow import export, plan_packing, race, resume, retrain, search

_HOMES = {
    "Budget": "fer_search.tuning.limit",
    "EMOTIONS": "fer_search.data.faces",
    "Faces": "fer_search.data.faces",
    "InvalidInput": "fer_search.errors",
    "Predictor": "fer_search.predict",
    "Recipe": "fer_search.recipe",
    "Report": "fer_search.tuning.objective",
    "Resources": "fer_search.tuning.connection",
    "SearchResult": "fer_search.search_result",
    "calibrate": "fer_search.calibrations",
    "distill": "fer_search.distillation",
    "evaluate": "fer_search.assessment",
    "export": "fer_search.workflow",
    "label_noise": "fer_search.cross_fitting",
    "load_faces": "fer_search.data.fer2013",
    "load_model": "fer_search.bundle_model",
    "optimize": "fer_search.objective_search",
    "plan_packing": "fer_search.workflow",
    "race": "fer_search.workflow",
    "read_search": "fer_search.search_result",
    "resume": "fer_search.workflow",
    "retrain": "fer_search.workflow",
    "search": "fer_search.workflow",
    "train": "fer_search.trainings",
}

__all__ = [
    "EMOTIONS",
    "Budget",
    "Faces",
    "InvalidInput",
    "Predictor",
    "Recipe",
    "Report",
    "Resources",
    "SearchResult",
    "calibrate",
    "distill",
    "evaluate",
    "export",
    "label_noise",
    "load_faces",
    "load_model",
    "optimize",
    "plan_packing",
    "race",
    "read_search",
    "resume",
    "retrain",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
