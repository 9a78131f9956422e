"""One screen of a search while it runs: who leads, what its rungs hold, how fast it is and when it may be done."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fer_search.journal import FILE_NAME, TrialRecord, apply_event, read_events
from fer_search.report import STATE_STYLES, STATE_WORDS, new_table
from fer_search.report_status import duration
from fer_search.runs import SETTINGS
from fer_search.search_result import SearchResult, read_search
from fer_search.training.metrics import accuracy_interval
from fer_search.tuning.expectation import expected_epochs
from fer_search.tuning.limit import NO_LIMIT, Budget
from fer_search.tuning.space import Space

WINDOW_SECONDS = 600.0
"""Over which time the speed is taken: long enough for a few epochs, short enough to notice a lost node."""
BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24
MOST_RUNNING = 6


class SearchScreen:
    """The search in `directory` as it is whenever this is rendered, by its journal, whichever process writes that.

    A search that is yet to begin has nothing to show. `budget` is what may be spent from `since` on, in seconds since
    the epoch.
    """

    def __init__(self, directory: Path, *, budget: Budget = NO_LIMIT, since: float | None = None) -> None:
        self.directory, self.budget = directory, budget
        self.since = time.time() if since is None else since
        self.trials: dict[int, TrialRecord] = {}
        self._offset = 0
        self._search: SearchResult | None = None
        self._endings: deque[float] = deque()  # when epochs ended lately
        self._bests: list[float] = []  # the best value after each epoch

    def __rich__(self) -> RenderableType:
        """Return the screen as it is now."""
        return self.render(time.time())

    def render(self, now: float) -> RenderableType:
        """Return the screen as it is at a time in seconds since the epoch."""
        if self._search is None:
            if not (self.directory / SETTINGS).exists():
                return f"{escape(self.directory.name)}: checking the data and the space, starting Ray"
            self._search = read_search(self.directory.name, runs=self.directory.parent)
        self._read()
        space = self._search.space
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column()
        for name, text in (
            ("best", self._best_line()),
            ("trials", self._trials_line()),
            ("speed", self._speed_line(now)),
            ("epochs", self._epochs_line(now)),
            ("budget", self._budget_line(now)),
        ):
            if text:
                facts.add_row(name, text)
        heading = f"[bold]{escape(self.directory.name)}[/]: {space.searcher}, {space.scheduler}"
        return Group(f"{heading}; for {duration(now - self.since)}", facts, self._rungs(), *self._running())

    def best(self) -> TrialRecord | None:
        """Return the best of the trials that passed the same, furthest rung: values of other epochs do not compare."""
        seen = [trial for trial in self.trials.values() if trial.epochs and trial.state != "FAIL"]
        furthest = max((self._level(trial) for trial in seen), default=0)
        return max((t for t in seen if self._level(t) == furthest), key=self._value, default=None)

    def epochs_per_second(self, now: float) -> float:
        """Return how many epochs of all trials together have ended in a second, lately."""
        while self._endings and self._endings[0] < now - WINDOW_SECONDS:
            self._endings.popleft()
        elapsed = min(now - self.since, WINDOW_SECONDS)
        return len(self._endings) / elapsed if elapsed > 0 else 0.0

    def _read(self) -> None:
        for event, end in read_events(self.directory / FILE_NAME, offset=self._offset):
            self._offset = end
            apply_event(self.trials, event)
            if event["event"] == "epoch_ended":
                if event["time"] >= self.since:
                    self._endings.append(event["time"])
                value = event["metrics"].get(self._space.metric, 0.0)
                self._bests.append(max(value, self._bests[-1] if self._bests else value))

    @property
    def _space(self) -> Space:
        assert self._search is not None, "it is read before anything is rendered"
        return self._search.space

    def _best_line(self) -> str:
        best = self.best()
        if best is None:
            return "no epoch has ended yet"
        value, metric = self._value(best), self._space.metric
        interval = ""
        if metric.startswith("val_accuracy"):
            assert self._search is not None
            num = self._search.settings["data"]["num_validation"]
            low, high = accuracy_interval(round(value * num), num)
            interval = f" ({low:.1%} to {high:.1%})"
        where = f"trial {best.number}, epoch {len(best.epochs)} of {self._space.horizon}"
        return f"[bold green]{_shown(value, metric)}[/]{interval}; {where}  {sparkline(self._bests, width=CURVE_WIDTH)}"

    def _trials_line(self) -> str:
        counts = Counter(trial.state for trial in self.trials.values())
        words = STATE_WORDS.items()
        parts = [f"[{STATE_STYLES[state]}]{counts[state]} {word}[/]" for state, word in words if counts[state]]
        return f"{', '.join(parts) or 'none yet'}, of {self._space.num_trials}"

    def _speed_line(self, now: float) -> str:
        running = [t.epochs[-1].get("images_per_second", 0.0) for t in self._in_state("RUNNING") if t.epochs]
        rate = 60 * self.epochs_per_second(now)
        return f"{rate:.1f} epochs a minute; {sum(running):,.0f} images/s in training steps" if self._bests else ""

    def _epochs_line(self, now: float) -> str:
        done = sum(len(trial.epochs) for trial in self.trials.values())
        most = expected_epochs(self._space)
        if self.budget.epochs is not None:
            most = min(most, self.budget.epochs)
        rate = self.epochs_per_second(now)
        line = f"{done:,} of about {max(most, done):,}"
        return f"{line}; at this speed {duration((most - done) / rate)} more" if rate and most > done else line

    def _budget_line(self, now: float) -> str:
        parts = []
        if self.budget.hours is not None:
            left = max(3600 * self.budget.hours - (now - self.since), 0.0)
            parts.append(f"{duration(left)} of {self.budget.hours:g} h left")
        if self.budget.epochs is not None:
            parts.append(f"{self.budget.epochs:,} epochs at the most")
        if self.budget.gpu_hours is not None:
            assert self._search is not None
            seconds = sum(trial.place_seconds for trial in self.trials.values())
            spent = seconds * self._search.settings["resources"]["gpus"] / 3600
            parts.append(f"{spent:.2f} of {self.budget.gpu_hours:g} GPU hours spent")
        return "; ".join(parts)

    def _rungs(self) -> Table:
        metric = self._space.metric
        table = new_table("")
        for heading in ("epoch", "trials there", "waiting", f"best {metric}"):
            table.add_column(heading, justify="right", no_wrap=True)
        for level in self._levels:
            values = [t.epochs[level - 1].get(metric, 0.0) for t in self.trials.values() if len(t.epochs) >= level]
            waiting = sum(len(trial.epochs) == level for trial in self._in_state("PAUSED"))
            best = _shown(max(values), metric) if values else ""
            table.add_row(str(level), str(len(values)), str(waiting or ""), best)
        return table

    def _running(self) -> list[Table]:
        running, metric = self._in_state("RUNNING"), self._space.metric
        if not running:
            return []
        more = len(running) - MOST_RUNNING
        table = new_table("", caption=f"and {more} more" if more > 0 else None)
        for heading in ("running", "epoch", metric):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for trial in running[:MOST_RUNNING]:
            curve = [metrics.get(metric, 0.0) for metrics in trial.epochs]
            value = _shown(curve[-1], metric) if curve else ""
            table.add_row(f"trial {trial.number}", str(len(curve)), value, sparkline(curve, width=CURVE_WIDTH))
        return [table]

    @cached_property
    def _levels(self) -> tuple[int, ...]:
        return (*self._space.rungs, self._space.horizon)

    def _level(self, trial: TrialRecord) -> int:
        return max((level for level in self._levels if level <= len(trial.epochs)), default=0)

    def _value(self, trial: TrialRecord) -> float:
        return trial.last(self._space.metric) or 0.0

    def _in_state(self, state: str) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.state == state]


def sparkline(values: Sequence[float], *, width: int) -> str:
    """Return values as a row of at most `width` bars from the lowest to the highest, each a stretch's best."""
    stretch = max(1, -(-len(values) // width))
    bars = [max(values[start : start + stretch]) for start in range(0, len(values), stretch)]
    low = min(bars, default=0.0)
    span = max(bars, default=0.0) - low
    return "".join(BARS[round((bar - low) / span * (len(BARS) - 1)) if span else 0] for bar in bars)


def _shown(value: float, metric: str) -> str:
    """Return an accuracy in percent and any other metric as a number."""
    return f"{value:.2%}" if metric.startswith("val_accuracy") else f"{value:.4f}"
