"""A search as a job: submitted, stopped after the epochs that run, gone on with as another job, retrained.

Run in namespaces of its own: job_life.py DIRECTORY.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from hosts import Host, make_network
from services import ROOT, fer_search, make_token, start_node, until, wait_for_dashboard

from fer_search.journal import FILE_NAME, read_events

NAME = "s"
QUICK = ("fit_fraction=0.2", "validation_fraction=0.05", "batch_size=16", "epochs=9")
TINY = ("epochs=1", "backbone=test_efficientnet", "pretrained=false", "stem_stride=2", "fusion_width=0")
DASHBOARD = "http://127.0.0.1:8265"


class Site:
    """A cluster of one machine and what runs there."""

    def __init__(self, directory: Path) -> None:
        self.runs, self.token, self.head = directory / "runs", make_token(directory), Host(0, "head")
        self.runs.mkdir()
        start_node(self.head, directory, self.token, "head", cpus=2)
        wait_for_dashboard(self.head)

    def call(self, *words: object) -> str:
        """Run a command of ours that must succeed, and return what it prints."""
        done = fer_search(self.head, self.token, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, *words: object, follow: bool = True) -> str:
        return self.call("submit", "--follow" if follow else "--no-follow", *words, "--runs", self.runs)

    def events(self, kind: str) -> list[tuple[int, int]]:
        found = [event for event, _ in read_events(self.runs / NAME / FILE_NAME) if event["event"] == kind]
        return [(event["trial"], event.get("epoch", 0)) for event in found]


def main(directory: Path) -> None:
    make_network()
    site = Site(directory)
    space = ROOT / "search_spaces" / "smoke.toml"
    job = site.submit("search", space, "--name", NAME, "--trials", 3, *QUICK, follow=False).strip()
    until(lambda: len(site.events("epoch_ended")) >= 2, what="two epochs")
    site.call("stop", NAME)
    stopped_at = site.events("epoch_ended")
    (listed,) = json.loads(site.call("list", "--json"))
    assert (listed["id"], listed["run"], listed["status"]) == (job, NAME, "STOPPED")
    shown = site.call("status", NAME, "--address", DASHBOARD, "--runs", site.runs, "--json")
    (status,) = json.loads(shown[shown.index("[\n") :])
    assert (status["state"], status["epochs"], status["running"]) == ("stopped", len(stopped_at), {})

    followed = site.submit("resume", NAME)
    assert "COMPLETE" in followed
    ended = site.events("epoch_ended")
    assert ended[: len(stopped_at)] == stopped_at
    assert len(set(ended)) == len(ended)
    assert len(site.events("trial_ended")) == 3
    assert not site.events("trial_retried")
    again = site.call("logs", NAME)
    assert again.count("COMPLETE") == followed.count("COMPLETE")

    site.submit("retrain", NAME, "--epochs", 2, "fit_fraction=0.1")
    assert (site.runs / NAME / "retrain" / "result.json").exists()
    site.submit("train", "--name", "t", *TINY)
    assert (site.runs / "t" / "result.json").exists()
    site.submit("label-noise", "--name", "n", "--folds", 2, *TINY)
    assert (site.runs / "n" / "soft_labels.parquet").exists()
    assert {job["status"] for job in json.loads(site.call("list", "--json"))} == {"STOPPED", "SUCCEEDED"}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
