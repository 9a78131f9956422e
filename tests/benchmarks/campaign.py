"""The FER2013 campaign in one command: default recipe, search, long trainings, variants, combinations, and their table.

    python tests/benchmarks/campaign.py --data fer2013.csv --runs campaign --budget full --plan
    python tests/benchmarks/campaign.py --data fer2013.csv --runs campaign --budget full
    python tests/benchmarks/campaign.py --data fer2013.csv --runs campaign --budget full --table docs/results.md

Every step is a command line of fer-search that can be given by hand, and the same command goes on after a kill. `full`
is for one GPU: all images, 300 epochs; `small` shows on a CPU that every step runs to its end. `--plan` prints the
steps and the hours that they are expected to take on this device. PrivateTest is not read.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from campaign_plan import print_plan
from campaign_steps import BUDGETS, NUM_RANKED, SEARCH, Step, first_steps, later_steps, spread, write_space
from campaign_table import write_page

from fer_search.search_result import SearchResult, read_search

LOG = "campaign.jsonl"
COMMAND = [sys.executable, "-m", "fer_search"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, default=Path("campaign"))
    parser.add_argument("--budget", choices=BUDGETS, default="full")
    parser.add_argument("--plan", action="store_true", help="print the steps and the hours they would take, and stop")
    parser.add_argument("--table", type=Path, help="run nothing and write the results into this Markdown file")
    arguments = parser.parse_args()
    budget, data, runs = BUDGETS[arguments.budget], arguments.data, arguments.runs
    first = first_steps(budget, data=data, runs=runs)
    if arguments.plan:
        ranked = [f"T{number}" for number in range(1, NUM_RANKED)]
        print_plan([*first, *later_steps(budget, ranked, data=data, runs=runs)], budget, data=data)
    elif arguments.table:
        write_page(arguments.table, runs, budget=arguments.budget, data=data)
    else:
        runs.mkdir(parents=True, exist_ok=True)
        write_space(budget, runs / "space.toml")
        for step in first:
            run(step, runs)
        for step in later_steps(budget, ranked_trials(read_search(SEARCH, runs=runs)), data=data, runs=runs):
            run(step, runs)


def ranked_trials(search: SearchResult) -> list[int]:
    """Return the trials that are trained long beside the winner, spread over those that reached the horizon."""
    complete = [trial.number for trial in search.leaderboard() if trial.state == "COMPLETE"]
    return spread(complete, without=search.winner().number, count=NUM_RANKED - 1)


def run(step: Step, runs: Path) -> None:
    """Run a step to its end, unless it is done; the log gets its command, seconds and exit code."""
    log = {entry["step"]: entry["code"] for entry in read_log(runs)}
    if step.needs is not None and log.get(step.needs, 0) != 0:
        print(f"{step.name}: left out, since there is no {step.needs}", flush=True)
        return
    if step.name in log or (step.done is not None and (runs / step.done).exists()):
        return
    words = list(step.words)
    if step.name == "search" and (runs / SEARCH).exists():
        words = ["resume", SEARCH, "--runs", str(runs), "--quiet"]
    print(f"{time.strftime('%H:%M')} fer-search {shlex.join(words)}", flush=True)
    started = time.time()
    done = subprocess.run([*COMMAND, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode not in ((0, 1) if step.may_decline else (0,)):
        sys.exit(f"{step.name} ended with code {done.returncode}; the same command goes on there")
    if step.output:
        (runs / step.output).write_text(done.stdout)
    entry = {"step": step.name, "words": words, "seconds": time.time() - started, "code": done.returncode}
    with (runs / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def read_log(runs: Path) -> list[dict[str, Any]]:
    """Return the steps that were run to their end, oldest first."""
    path = runs / LOG
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
