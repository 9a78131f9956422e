"""The demonstration behind `make demo`: the tutorial's own commands, as they stand in docs/tutorial.md.

The end-to-end test runs this same file with fewer and shorter trials.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from fer_search.cli import main as fer_search

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.md"
QUICK = {"search": ["--trials", "5", "epochs=3", "fit_fraction=0.1"], "retrain": ["--epochs", "3"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--name", default=time.strftime("demo-%Y%m%d-%H%M%S"), help="instead of the tutorial's `first`")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter trials, for a test")
    arguments = parser.parse_args()
    runs, name, started = arguments.runs, arguments.name, time.monotonic()
    os.environ["FER_SEARCH_RUNS"] = str(runs)

    for language, text in blocks(TUTORIAL):
        here = text.replace("runs/first", str(runs / name)).replace("search_spaces", str(ROOT / "search_spaces"))
        if language == "python":
            exec(here, {})
            continue
        for command in commands(here):
            words = [name if word == "first" else word for word in command]
            if arguments.quick:
                words += QUICK.get(words[1], [])
            say(f"\n$ {shlex.join(words)}")
            run(words)

    elsewhere = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    say(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes; what each command did: docs/tutorial.md")
    say(f"the report:            {runs / name / 'report' / 'report.html'}")
    say(f"the MLflow UI:         fer-search ui{elsewhere}")
    say("with FER2013 at hand:  fer-search search search_spaces/full.toml --name first --data fer2013.csv")


def run(words: list[str]) -> None:
    """Run a command as the console script does, but all in one process: loading torch takes longer than most do."""
    sys.argv = words
    try:
        fer_search()
    except SystemExit as stop:
        if stop.code:
            raise


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of the page's blocks of shell and Python."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence" and token.info in ("sh", "python"):
            yield token.info, token.content


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each of our commands; a reader has installed already."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["fer-search"]:
            yield words


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
