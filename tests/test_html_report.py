"""The report's page, read by an HTML parser and opened in a browser; its figures against those it is drawn from."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from fer_search import workflow
from fer_search.data.faces import EMOTIONS
from fer_search.data.fer2013 import load_faces
from fer_search.html_report import search_plots, training_plots
from fer_search.html_report.page import Section, report_sections
from fer_search.html_report.report import report
from fer_search.journal import FILE_NAME, Journal, TrialRecord
from fer_search.long_trainings import read_logits, read_retraining
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.search_result import SearchResult
from fer_search.tracking import Tracker
from fer_search.tracking_uri import local_store
from fer_search.training.metrics import evaluate
from fer_search.tuning.connection import Resources
from fer_search.tuning.space_file import read_space

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPACE = """
[search]
searcher = "random"
num_trials = 3
first_rung = 1

[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
drop_path = 0.0
fusion_width = 0
epochs = 2
fit_fraction = 0.1
accumulation = 1

[space.max_lr]
low = 0.0005
high = 0.05
log = true

[space.class_weight_power]
choices = [0.0, 0.5]
"""


class Page(HTMLParser):
    """The elements of a page, each as (tag, attributes), and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words = [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory, with_stores):
    """A finished search whose winner was trained, with its report."""
    runs = with_stores(tmp_path_factory.mktemp("report") / "runs")
    (runs / "space.toml").write_text(SPACE)
    workflow.search(runs / "space.toml", name="s", resources=Resources(max_concurrent=1), runs=runs)
    workflow.retrain("s", overrides={"epochs": 1}, runs=runs)
    report("s", runs=runs)
    return runs


@pytest.fixture(scope="module")
def page(runs):
    return Page(runs / "s" / "report" / "report.html")


def test_the_page_holds_all_that_it_shows(page):
    links = [value for _, attributes in page.elements for key, value in attributes.items()
             if key in ("src", "href", "xlink:href", "srcset", "action")]  # fmt: skip
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in page.source
    assert not page.all("script")


def test_every_plot_has_words_for_those_who_do_not_see_it_and_is_an_image_too(page, runs):
    drawings = page.all("svg")
    assert len(drawings) >= 10
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in drawings)
    assert len(list((runs / "s" / "report").glob("*.png"))) == len(drawings)


def test_names_within_the_page_are_unique_and_what_refers_to_them_finds_them(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page.source)) <= set(names)


def test_it_says_the_winners_figures_and_those_of_every_trial(page, runs):
    result = workflow.read_search("s", runs=runs)
    best = result.leaderboard()[0]
    assert f"{best.number}: val_accuracy {best.last('val_accuracy'):.2%}" in page.text
    for trial in result.trials:
        assert f"{trial.state} {len(trial.epochs)} {trial.last('val_accuracy'):.4f}" in page.text
    (training,) = read_retraining(runs / "s" / "retrain")
    for views in ("plain", "tta"):
        assert f"{training.result['metrics']['public'][views]['accuracy']:.2%}" in page.text


def test_the_commands_to_repeat_it_have_the_length_that_the_winner_was_trained_for(page):
    assert "fer-search retrain s --epochs 1 --seeds 1 && fer-search export s" in page.text


def test_mlflow_has_it_with_the_searchs_run(runs):
    tracker = Tracker(local_store(runs))
    run = tracker.find_runs(workflow.read_search("s", runs=runs).settings["search_id"])["search"]
    stored = {Path(each.path).name for each in tracker.client.list_artifacts(run.id, "report")}
    assert {"report.html", "learning_curves.png", "confusion.png", "mistakes.png"} <= stored


def test_a_search_says_what_it_lacks_and_which_command_does_it(runs, tmp_path):
    shutil.copytree(runs / "s", tmp_path / "s", ignore=shutil.ignore_patterns("retrain", "report"))
    text = Page(report("s", output=tmp_path / "out", runs=tmp_path)).text
    assert "fer-search race s" in text
    assert "fer-search retrain s" in text
    (tmp_path / "s" / FILE_NAME).unlink()
    Journal(tmp_path / "s" / FILE_NAME).trial_started(0, Recipe().model_dump())
    (only,) = report_sections(workflow.read_search("s", runs=tmp_path))
    assert only == Section("Summary", "No trial has anything to compare yet.")


def test_logits_are_kept_in_the_order_of_their_faces(runs):
    (training,) = read_retraining(runs / "s" / "retrain")
    splits = split_for(load_faces("synthetic"), Recipe.build(training.result["recipe"]))
    for split, faces in (("validation", splits.validation), ("public", splits.public)):
        for views, figures in training.result["metrics"][split].items():
            predicted = read_logits(training.directory, split, views).argmax(1)
            assert confusion_matrix(faces.labels, predicted, labels=range(7)).tolist() == figures["confusion"]


def test_the_faces_shown_are_those_with_the_most_confidence_and_their_titles_say_so(runs):
    faces = load_faces("synthetic").take(np.arange(40))
    logits = np.zeros((40, 7), np.float32)
    logits[np.arange(40), (faces.labels + (np.arange(40) % 2)) % 7] = 1 + np.arange(40) / 10  # every other one is wrong
    plot = training_plots.told_faces("x", faces, logits, 2.0, right=False, split="a split")
    axes = plot.figure.axes[0]
    top = np.exp(4.9 / 2) / (np.exp(4.9 / 2) + 6)
    assert axes.get_title() == f"{EMOTIONS[(faces.labels[39] + 1) % 7]} {top:.0%}\n({EMOTIONS[faces.labels[39]]})"
    np.testing.assert_array_equal(axes.images[0].get_array(), faces.pixels[39])


def test_the_recall_bars_are_those_of_the_confusion_matrix():
    labels = np.arange(70) % 7
    logits = np.eye(7)[labels]
    logits[:20] = np.eye(7)[3]
    figures = evaluate(logits, labels, classes=EMOTIONS, temperature=1.0)
    plot = training_plots.recall({"plain": figures, "tta": figures}, split="a split")
    heights = [bar.get_height() for bar in plot.figure.axes[0].patches]
    assert heights[:7] == pytest.approx([(logits[labels == c].argmax(1) == c).mean() for c in range(7)])


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_opens_it_without_complaint_and_draws_its_theme(runs, tmp_path, theme):
    from PIL import Image

    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--window-size=900,1200", f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}",
        f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}",
        (runs / "s" / "report" / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    brightness = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    assert (np.median(brightness) > 240) == (theme == "light")
    assert np.ptp(brightness) > 150


@pytest.mark.parametrize(("on_a_line", "there"), [(True, False), (False, True)])
def test_a_contour_is_drawn_unless_all_trials_are_on_a_line(on_a_line, there):
    domains = {name: {"low": 0.0, "high": 1.0} for name in "ab"}
    defaults = {"epochs": 3, "a": 0.5, "b": 0.5}
    table = {"search": {"metric": "score"}, "space": domains}
    space = read_space(table, source=Path("x"), defaults=defaults, check=lambda values: [], metrics=["score"])
    points = [{"a": k / 8, "b": k / 16 if on_a_line else (k * k % 8) / 8} for k in range(8)]
    trials = [TrialRecord(n, point, 0.0, point=point, epochs=[{"score": n}]) for n, point in enumerate(points)]
    found = search_plots.contour(SearchResult(Path("x"), {}, space, trials), ["a", "b"])
    assert (found is not None) is there
    if found:
        assert found.png.startswith(b"\x89PNG")
