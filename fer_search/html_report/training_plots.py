"""The plots of a long training: what its network confuses, how far its confidence is to be believed, which faces."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from fer_search.data.faces import Faces
from fer_search.html_report.drawing import BLUE, GREY, ORANGE, Plot, drawn
from fer_search.training.calibration import log_probabilities
from fer_search.training.metrics import accuracy_interval, classes_of

NUM_BINS = 10
FACES_A_ROW = 8
VIEW_COLORS = {"plain": ORANGE, "tta": BLUE}


def confusion(figures: dict[str, Any], *, split: str) -> Plot:
    """Draw the share of each class's images that were taken for each class."""
    classes, counts = classes_of(figures), np.array(figures["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = shares_figure(shares, classes, rows="true", columns="predicted")
    worst = divmod(int(np.argmax(shares - 2 * np.eye(len(classes)))), len(classes))
    true, taken_for = classes[worst[0]], classes[worst[1]]
    return Plot(
        "confusion",
        figure,
        f"Confusion matrix on {split}; most often confused: {true} taken for {taken_for}, {shares[worst]:.0%}.",
        f"Each row is all {split} images of a class.",
    )


def recall(by_views: dict[str, dict[str, Any]], *, split: str) -> Plot:
    """Draw the recall of each class with its 95 % interval, without and with test-time augmentation."""
    classes = classes_of(by_views["plain"])
    with drawn(8.0, 3.2) as (figure, axes):
        for offset, (views, figures) in zip((-0.18, 0.18), by_views.items(), strict=True):
            counts = np.array(figures["confusion"])
            hits, totals = counts.diagonal(), counts.sum(1)
            ends = [accuracy_interval(int(h), int(t)) if t else (0.0, 0.0) for h, t in zip(hits, totals, strict=True)]
            places = np.arange(len(classes)) + offset
            axes.bar(places, hits / np.maximum(totals, 1), width=0.34, color=VIEW_COLORS[views], alpha=0.7, label=views)
            axes.vlines(places, *np.array(ends).T, color=GREY)
        axes.set_xticks(range(len(classes)), classes)
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.set_ylabel("recall")
        axes.legend(frameon=False, ncols=2, loc="upper right")
    found = ", ".join(f"{name} {value:.0%}" for name, value in by_views["plain"]["recall"].items() if value is not None)
    return Plot(
        "recall",
        figure,
        f"Recall on {split} without test-time augmentation: {found}.",
        f"On {split}; lines are 95 % intervals.",
    )


def calibration(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float, *, split: str) -> Plot:
    """Draw how often the network was right at each confidence, before and after its temperature."""
    correct = logits.argmax(1) == labels
    with drawn(4.6, 4.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        for at, color, label in ((1.0, ORANGE, "as it is"), (temperature, BLUE, f"temperature {temperature:.2f}")):
            confidence = np.exp(log_probabilities(logits, at)).max(1)
            share, mean = calibration_curve(correct, confidence, n_bins=NUM_BINS)
            axes.plot(mean, share, color=color, marker="o", markersize=4, label=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.set(xlabel="confidence", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
    return Plot(
        "calibration",
        figure,
        f"How often the network was right at each confidence on {split}, before and after temperature scaling.",
        f"On {split}, {NUM_BINS} bins. Below the dotted line the network is surer than it is right.",
    )


def told_faces(
    name: str, faces: Faces, logits: NDArray[np.float32], temperature: float, *, right: bool, split: str
) -> Plot:
    """Draw the faces of which the network was surest, among those it was `right` or wrong about, two rows of them."""
    probabilities = np.exp(log_probabilities(logits, temperature))
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    among = np.flatnonzero((predicted == faces.labels) == right)
    chosen = among[np.argsort(-confidence[among], kind="stable")][: 2 * FACES_A_ROW]
    titles = [
        f"{faces.classes[predicted[i]]} {confidence[i]:.0%}"
        + ("" if right else f"\n({faces.classes[faces.labels[i]]})")
        for i in chosen
    ]
    kind = "Right" if right else "Wrong"
    return Plot(
        name,
        faces_figure(faces.pixels[chosen], titles),
        f"{kind} with the most confidence: " + "; ".join(title.replace("\n", " ") for title in titles) + ".",
        f"{kind} answers of the highest confidence on {split}"
        + ("." if right else "; in brackets the label, which may be the one that is wrong."),
    )


def shares_figure(shares: NDArray[np.float64], classes: Sequence[str], *, rows: str, columns: str) -> Any:
    """Return a figure of shares (classes, classes), each row of which sums to 1."""
    with drawn(6.0, 4.6) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(shares.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", color=color, fontsize=9)
        axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel=columns, ylabel=rows)
    return figure


def faces_figure(pixels: NDArray[np.uint8], titles: list[str]) -> Any:
    """Return a figure of faces, (N, H, W) or (N, H, W, 3), in rows, each under its title."""
    rows = max(1, -(-len(pixels) // FACES_A_ROW))
    with drawn(8.0, 1.45 * rows, rows=rows, columns=FACES_A_ROW) as (figure, grid):
        for axes in np.ravel(grid):
            axes.axis("off")
        for axes, image, title in zip(np.ravel(grid), pixels, titles, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=7)
    return figure
