"""What a person reads of replayed searches: how good the emulator is, the regrets, and how settings differ."""

from typing import TYPE_CHECKING

from rich.table import Table

from fer_search.report import new_table

if TYPE_CHECKING:
    from fer_search.emulator import Emulator
    from fer_search.simulate import Outcome, Setting

LITTLE_R2 = 0.5
"""Below it, an emulator leaves most of what it should know unexplained."""


def problem_lines(source: str, data: str, emulator: "Emulator", asked: "Setting") -> list[str]:
    """Return what was replayed, and what it is worth."""
    quality, metric = emulator.quality, emulator.space.metric
    left_out = f", {quality.num_left_out} without an epoch left out" if quality.num_left_out else ""
    continued = (
        f" ({quality.num_continued} of them stopped, and continued in parallel)" if quality.num_continued else ""
    )
    described = asked.described(emulator.space)
    lines = [
        f"{source}: {quality.num_curves} curves of {metric} over {emulator.space.horizon} epochs on {data}, "
        f"schedule {quality.schedule}{continued}{left_out}",
        f"searched with: {described}",
        f"emulator: {quality.model}; of held-out final values R2 {quality.r2:.2f}, rank correlation "
        f"{quality.rank_correlation:.2f}; best of random {emulator.best:.1%}, median {emulator.median:.1%}",
    ]
    if quality.r2 < LITTLE_R2:
        lines.append(f"warning: with an R2 below {LITTLE_R2} the emulator is mostly guesswork, and so is what follows")
    return lines


def regrets_table(outcomes: dict[str, "Outcome"], budgets: list[int], *, workers: int) -> Table:
    """Return the mean regret of each setting after each budget, with its 95 % interval."""
    first = next(iter(outcomes.values()))
    caption = (
        "trials: started on average; ended: trained to the end. Regret: 0 is the best of 2,000 random configurations "
        "trained to the end, 1 their median, both without noise; judged is the trial that the leaderboard shows first. "
        "An emulator from few curves is smooth where a training may not be, which favours searchers with a model: it "
        "can rank settings that differ much, no more."
    )
    title = f"regret after a budget in full trainings ({workers} workers, {len(first.regrets)} seeds, 95 % interval)"
    table = new_table(title, caption=caption)
    table.add_column("search", no_wrap=True)
    for heading in (*map(str, budgets), "trials", "ended"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, outcome in outcomes.items():
        cells = [
            f"{_short(mean, 3)} ({_short(low, 2)}-{_short(high, 2)})"
            for mean, (low, high) in zip(outcome.mean, outcome.intervals, strict=True)
        ]
        style = "bold" if outcome is first else None
        table.add_row(name, *cells, f"{outcome.num_trials:.0f}", f"{outcome.num_complete:.0f}", style=style)
    return table


def differences_table(outcomes: dict[str, "Outcome"], budgets: list[int]) -> Table:
    """Return the first setting's regret minus each other's, with the p of a paired test."""
    own, *others = outcomes
    caption = (
        "Below 0 the first is better. p: Wilcoxon's signed-rank test over seeds, not corrected for how many there are; "
        "it knows the luck of searches, not the error of the emulator."
    )
    table = new_table(f"{own}, minus", caption=caption)
    table.add_column("search", no_wrap=True)
    for budget in budgets:
        table.add_column(str(budget), justify="right", no_wrap=True)
    for name in others:
        differences = outcomes[own].mean - outcomes[name].mean
        pairs = zip(differences, outcomes[own].p_values(outcomes[name]), strict=True)
        table.add_row(name, *(_difference(float(difference), p) for difference, p in pairs))
    return table


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def _difference(difference: float, p: float) -> str:
    text = f"{difference:+.3f} (p {p:.3f})"
    if p >= 0.05:
        return text
    return f"[green]{text}[/]" if difference < 0 else f"[red]{text}[/]"
