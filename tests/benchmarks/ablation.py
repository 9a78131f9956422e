"""What each technique is worth on real FER2013: the default recipe with one thing changed, several seeds each.

    python tests/benchmarks/ablation.py fer2013.csv --results ablation.jsonl
    python tests/benchmarks/ablation.py fer2013.csv --results ablation.jsonl --table docs/ablation.md

Every finished training is a line of the results file, so that an interrupted run goes on where it was; lines that other
code, another recipe or other faces made are passed over. Trainings are judged on a part of Training that they do not
learn from; PublicTest is not read.
"""

import argparse
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import fer_search.training
from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.training.evaluation import epoch_metrics, predict_logits
from fer_search.training.trainer import Diverged, Trainer, choose_device

# Small enough for two CPU cores. Few images and many passes, so that the network can overfit them, as it would all of
# them in a long training; a stem that halves the resolution, since without it everything takes three times as long.
# Without the mixing of the default recipe, which trains on twenty times as many images and longer.
SMALL = {
    "validation_fraction": 0.25, "fit_fraction": 0.05, "epochs": 12, "stem_stride": 2, "batch_size": 32,
    "accumulation": 1, "mixup_alpha": 0.0, "cutmix_alpha": 0.0,
}  # fmt: skip
NUM_JUDGED = 3000
NUM_WATCHED = 100  # after every epoch, which costs time and decides nothing here

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    # What the default has, taken away.
    "no ImageNet weights": {"pretrained": False},
    "no cross-scale fusion": {"fusion_width": 0},
    "no dropout": {"dropout": 0.0},
    "no drop path": {"drop_path": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no averaged weights": {"ema_decay": 0.0},
    "no gradient clipping": {"grad_clip": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no flips": {"flip_probability": 0.0},
    "no shifts": {"shift_pixels": 0},
    # What it does not have, added.
    "stem of stride 1": {"stem_stride": 1},
    "output stride 16": {"output_stride": 16},
    "faces enlarged to 96 pixels": {"image_size": 96},
    "squeeze and excitation": {"se_attention": True},
    "CBAM": {"cbam_attention": True},
    "coordinate attention": {"coordinate_attention": True},
    "self attention, 4 heads": {"self_attention_heads": 4},
    "pyramid pooling": {"pyramid_pooling": True},
    "emotion heads, 0.3": {"emotion_heads_weight": 0.3},
    "auxiliary outputs, 0.3": {"auxiliary_weight": 0.3},
    "SAM, 0.05": {"sam_rho": 0.05},
    "SAM, 0.01": {"sam_rho": 0.01},
    "ASAM, 0.5": {"sam_rho": 0.5, "sam_adaptive": True},
    "LookSAM, 0.05, every 5th step": {"sam_rho": 0.05, "sam_interval": 5},
    "class weights, balanced": {"class_weight_power": 1.0},
    "class weights, square root": {"class_weight_power": 0.5},
    "RandAugment, magnitude 9": {"randaugment_magnitude": 9.0},
    "the same, alike for all emotions": {
        "randaugment_magnitude": 9.0, "randaugment_probability": 0.85,
        "randaugment_probability_fear": 0.85, "randaugment_probability_sad": 0.85,
    },
    "random erasing, 0.3": {"erasing_probability": 0.3},
    "MixUp": {"mixup_alpha": 0.4},
    "CutMix": {"cutmix_alpha": 0.5},
    "MixUp and CutMix": {"mixup_alpha": 0.4, "cutmix_alpha": 0.5},
    "SGD, 0.01": {"optimizer": "sgd", "max_lr": 0.01, "div_factor": 2.0, "weight_decay": 5e-4},
    "SGD, 0.1": {"optimizer": "sgd", "max_lr": 0.1, "weight_decay": 5e-4},
    "a tenth of the learning rate for the backbone": {"backbone_lr_scale": 0.1},
    "half the learning rate": {"max_lr": 0.001},
    "twice the learning rate": {"max_lr": 0.004},
    "the design, on this backbone": {
        **Recipe.design().model_dump(), "backbone": Recipe().backbone, **SMALL,
        "mixup_alpha": Recipe.design().mixup_alpha, "cutmix_alpha": Recipe.design().cutmix_alpha,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--results", type=Path, default=Path("ablation.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--table", type=Path, help="train nothing and write the results into this Markdown file")
    arguments = parser.parse_args()
    if arguments.table:
        pattern = r"<!-- table -->.*<!-- end of table -->"
        rows = f"<!-- table -->\n{table(read_results(arguments.results))}<!-- end of table -->"
        text = arguments.table.read_text()
        arguments.table.write_text(re.sub(pattern, lambda _: rows, text, flags=re.DOTALL))
        return
    faces = load_faces(arguments.data)
    wanted = [name for name in VARIANTS if not arguments.only or name in arguments.only]
    for seed in range(arguments.seeds):
        for name in wanted:
            recipe = recipe_of(name, seed)
            splits = split_for(faces, recipe)
            chosen = np.random.default_rng(0).permutation(len(splits.validation))[:NUM_JUDGED]
            judged = splits.validation.take(chosen)
            key = {"name": name, "seed": seed, "made_by": made_by(recipe), "judged": judged.fingerprint()}
            if any(key.items() <= result.items() for result in read_results(arguments.results)):
                continue
            result = {**key, **measure(recipe, splits.fit, judged)}
            with arguments.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{name}, seed {seed}: {result['accuracy']:.2%}, {result['seconds']:.0f} s", flush=True)


def recipe_of(name: str, seed: int) -> Recipe:
    return Recipe().replace({**SMALL, **VARIANTS[name], "seed": seed})


def made_by(recipe: Recipe) -> str:
    """Return a digest of the recipe and of the code that trains it."""
    code = Path(fer_search.training.__file__).parent.glob("*.py")
    digest = hashlib.sha256(recipe.digest().encode())
    for file in sorted(code):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def measure(recipe: Recipe, fit: Faces, judged: Faces) -> dict[str, Any]:
    """Train `recipe` and return how its last weights, averaged if it averages, do on faces that it has not seen."""
    trainer = Trainer(recipe, fit, judged.take(np.arange(NUM_WATCHED)), device=choose_device())
    started = time.perf_counter()
    try:
        for _ in trainer:
            pass
    except Diverged:
        pass  # what is left of the network is judged like any other
    seconds = time.perf_counter() - started
    model = trainer.ema.module if trainer.ema else trainer.model
    logits = predict_logits(model, torch.tensor(judged.pixels, device=trainer.device))
    figures = epoch_metrics(logits, torch.tensor(judged.labels, device=trainer.device))
    return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], "seconds": seconds}


def read_results(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(results: list[dict[str, Any]]) -> str:
    """Return the table of all variants, each over the seeds that both it and the default have been trained with.

    A difference is the mean over the seeds, each against the default's training with that seed. Its 95 % interval is
    Student's, with one deviation pooled over all variants, since a few seeds say little about the spread of one.
    """
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for result in results:
        if result["made_by"] == made_by(recipe_of(result["name"], result["seed"])):
            by_name.setdefault(result["name"], {})[result["seed"]] = result
    default = by_name["default"]
    differences = {
        key: {
            name: np.array([seeds[s][key] - default[s][key] for s in seeds.keys() & default.keys()])
            for name, seeds in by_name.items()
            if name != "default"
        }
        for key in ("accuracy", "macro_f1")
    }
    degrees = sum(len(each) - 1 for each in differences["accuracy"].values())
    reach = {
        key: stats.t.ppf(0.975, degrees) * np.sqrt(sum(len(d) * d.var() for d in each.values()) / degrees)
        for key, each in differences.items()
    }
    rows = [
        "| change | seeds | accuracy | difference, points | macro-F1 difference, points | training time |",
        "|---|---|---|---|---|---|",
    ]
    base_seconds = min(result["seconds"] for result in default.values())
    for name in (each for each in VARIANTS if each in by_name):
        seeds = by_name[name].values()
        accuracy = f"{np.mean([each['accuracy'] for each in seeds]):.1%}"
        cells = [
            ""
            if name == "default"
            else f"{differences[key][name].mean() * 100:+.1f} ± {reach[key] / np.sqrt(len(seeds)) * 100:.1f}"
            for key in ("accuracy", "macro_f1")
        ]
        ratio = min(each["seconds"] for each in seeds) / base_seconds  # the least disturbed by other work
        rows.append(f"| {name} | {len(seeds)} | {accuracy} | {' | '.join(cells)} | x {ratio:.1f} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
