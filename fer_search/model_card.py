"""The card of a bundle, in Hugging Face's form: what the network is, how it was measured, and what it is not for.

Every figure is the manifest's; what else the card states is in its template.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_search.recipe import Recipe

CARD = "MODEL_CARD.md"
TITLES = {
    "training": "{0} for facial expressions",
    "soup": "{0} for facial expressions, a mean of weights",
    "ensemble": "An ensemble of {1} networks for facial expressions",
}
VIEW_NAMES = {"plain": "plain", "tta": "TTA"}


def model_card(manifest: Mapping[str, Any], *recipes: Recipe) -> str:
    """Return the card of the bundle with this manifest and these networks, as Markdown with metadata in YAML."""
    environment = Environment(
        loader=PackageLoader("fer_search", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "percent": _percent, "interval": _interval}
    data, metrics, views = manifest["data"], manifest["metrics"], manifest["prediction"]["views"]
    label, source = data["public_label"], Path(data["source"])
    names = {"validation": "search-validation", "public": label, "public_unique": f"{label}, without copies"}
    splits = {
        key: {"key": key, "name": name, "figures": metrics[key], "is_result": key != "validation"}
        for key, name in names.items()
        if key in metrics
    }
    figures = metrics["public"][views]
    return environment.get_template("model_card.md").render(
        {
            **manifest,
            "title": TITLES[manifest["kind"]].format(manifest["network"]["backbone"], len(recipes)),
            "recipe": recipes[0],
            "recipes": recipes,
            "data_name": source.name,
            "data_type": source.stem,
            "data_argument": shlex.quote(source.name),
            "synthetic": data["source"] == "synthetic",
            "views": views,
            "view_names": VIEW_NAMES,
            "splits": list(splits.values()),
            "public": splits["public"],
            "by_class": [
                {
                    "name": name,
                    "num_images": sum(counts),
                    "recall": figures["recall"][name],
                    "precision": figures["precision"][name],
                }
                for name, counts in zip(manifest["classes"], figures["confusion"], strict=True)
            ],
        }
    )


def _cell(text: object) -> str:
    """Return a name of the user's for a table, whose columns a bar would end."""
    return str(text).replace("|", r"\|")


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _interval(figures: Mapping[str, Any]) -> str:
    return f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}"
