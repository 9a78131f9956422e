"""What is shown of label noise: the page of `label-noise`, and the section of it in a search's report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.data.faces import Faces
from fer_search.data.label_noise import LabelNoise, find_label_noise
from fer_search.html_report.drawing import Plot
from fer_search.html_report.section import Section
from fer_search.html_report.tables import from_terminal
from fer_search.html_report.templates import template
from fer_search.html_report.training_plots import FACES_A_ROW, faces_figure, shares_figure
from fer_search.report_label_noise import CAVEAT, noise_table

if TYPE_CHECKING:
    from fer_search.cross_fitting import NoiseReport

ROWS_OF_PAGE, ROWS_OF_SECTION = 8, 2


def write_page(path: Path, report: "NoiseReport") -> None:
    """Write the page of a run of label-noise; it holds all that it shows and needs no network."""
    summary, split = report.summary(), "the images to train on"
    text = (
        f"Networks that had not learned from an image agree with its label in {summary['accuracy']:.1%} of "
        f"{summary['num_images']:,} images. By confident learning {summary['wrong_share']:.1%} of the labels are "
        f"wrong, and {summary['num_suspects']:,} images are suspicious. {CAVEAT}"
    )
    sections = [
        Section(
            "Estimate", text, [from_terminal(noise_table(summary))], [noise_plot(report.noise, report.fit.classes)]
        ),
        Section(
            "Suspicious labels",
            "All of them, the most suspicious first, are in suspects.csv.",
            plots=[suspects_plot(report.fit, report.probabilities, report.noise, rows=ROWS_OF_PAGE, split=split)],
        ),
    ]
    page = template("template.html").render(name=report.directory.name, subject="label noise", sections=sections)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def suspects_section(faces: Faces, probabilities: NDArray[np.floating[Any]], *, split: str) -> Section:
    """Return the section with the suspicious labels of faces from which the network has not learned."""
    noise = find_label_noise(probabilities, faces.labels)
    if not len(noise.suspects):
        return Section("Suspicious labels", f"None on {split}.")
    text = f"{len(noise.suspects):,} of {len(faces):,} images of {split} are confidently of another class. {CAVEAT}"
    plot = suspects_plot(faces, probabilities, noise, rows=ROWS_OF_SECTION, split=split)
    return Section("Suspicious labels", text, plots=[plot])


def noise_plot(noise: LabelNoise, classes: tuple[str, ...]) -> Plot:
    """Draw the estimated share of each class among the images with each label."""
    shares = np.nan_to_num(noise.true_given_label)
    label, true = divmod(int(np.argmax(shares - 2 * np.eye(len(classes)))), len(classes))
    alt = f"Estimated classes of the images with each label; most often wrong: {shares[label, true]:.0%} of what is "
    return Plot(
        "label_noise",
        shares_figure(shares, classes, rows="label", columns="estimated class"),
        f"{alt}labelled {classes[label]} is {classes[true]}.",
        "Each row is all images with a label, by the class that confident learning estimates.",
    )


def suspects_plot(
    faces: Faces, probabilities: NDArray[np.floating[Any]], noise: LabelNoise, *, rows: int, split: str
) -> Plot:
    """Draw the most suspicious faces, under the label and the class that is suggested."""
    shown = rows * FACES_A_ROW
    chosen, suggested = noise.suspects[:shown], noise.suggested[:shown]
    titles = [
        f"{faces.classes[faces.labels[i]]} →\n{faces.classes[to]} {probabilities[i, to]:.0%}"
        for i, to in zip(chosen, suggested, strict=True)
    ]
    return Plot(
        "suspects",
        faces_figure(faces.pixels[chosen], titles),
        "Label and suggested class: " + "; ".join(title.replace("\n", " ") for title in titles) + ".",
        f"The most suspicious of {split}: the label, and the class that is suggested with its probability.",
    )
