"""The demonstration behind `make demo`: the whole path on the embedded synthetic faces, with the real command line.

It searches, compares, retrains the winner, evaluates, exports and predicts, and says where to look next. The end-to-end
test runs this same file with fewer trials.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from fer_search.data.synthetic import synthesize

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--name", default=time.strftime("demo-%Y%m%d-%H%M%S"))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=9, help="of a trial")
    parser.add_argument("--retrain-epochs", type=int, default=15)
    parser.add_argument("--fit-fraction", type=float, default=1.0, help="of the faces, to train on")
    arguments = parser.parse_args()
    runs, name, started = arguments.runs, arguments.name, time.monotonic()

    fer_search(runs, "data", "check", "synthetic")
    space = str(ROOT / "search_spaces" / "smoke.toml")
    trials = ("--trials", str(arguments.trials))
    fer_search(
        runs,
        "search",
        space,
        f"epochs={arguments.epochs}",
        f"fit_fraction={arguments.fit_fraction}",
        "--name",
        name,
        *trials,
    )
    fer_search(runs, "retrain", name, "--epochs", str(arguments.retrain_epochs))
    fer_search(runs, "export", name)
    fer_search(runs, "report", name)
    bundle = runs / name / "bundle"
    fer_search(runs, "evaluate", str(bundle), "--split", "public")
    fer_search(runs, "predict", str(bundle), str(write_faces(runs / name / "faces")))

    manifest = json.loads((bundle / "manifest.json").read_text())
    public = manifest["metrics"]["public"][manifest["prediction"]["views"]]
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes: PublicTest accuracy {public['accuracy']:.1%}")
    say(f"the trials side by side:  {command(runs, 'compare', name)}")
    say(f"the report:               {runs / name / 'report' / 'report.html'}")
    say(f"the MLflow UI:            {command(runs, 'ui')}")
    say(f"the exported winner:      {bundle}")
    say("with FER2013 at hand:     fer-search search search_spaces/full.toml --name first --data fer2013.csv")


def fer_search(runs: Path, *arguments: str) -> None:
    say(f"\n$ {command(runs, *arguments)}")
    subprocess.run([sys.executable, "-m", "fer_search", *with_runs(runs, *arguments)], check=True)


def command(runs: Path, *arguments: str) -> str:
    return shlex.join(["fer-search", *with_runs(runs, *arguments)])


def with_runs(runs: Path, *arguments: str) -> list[str]:
    takes_runs = arguments[0] not in ("data", "predict") and runs != Path("runs")
    return [*arguments, *(("--runs", str(runs)) if takes_runs else ())]


def write_faces(folder: Path) -> Path:
    """Write one face of each emotion that no training has seen."""
    folder.mkdir(parents=True, exist_ok=True)
    faces = synthesize(200, seed=12345)
    for label in range(7):
        pixels = faces.pixels[faces.labels == label][0]
        Image.fromarray(pixels).save(folder / f"{label}.png")
    return folder


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
