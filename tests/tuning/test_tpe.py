from toy import toy_space

from fer_search.journal import TrialRecord
from fer_search.tuning.tpe import tpe_point


def records(states, *, good, count=40):
    """Return trials spread over the range; those near `good` have the largest values after their one epoch."""
    found = []
    for number in range(count):
        x = -10 + 20 * (number + 0.5) / count
        score = 1 - abs(x - good) / 20
        state = states(x)
        message = "diverged: the loss is nan" if state == "FAIL" else ""
        epochs = [] if state == "FAIL" else [{"score": score}]
        found.append(TrialRecord(number, {}, 0.0, {"x": x}, state=state, message=message, epochs=epochs))
    return found


def proposals(trials, count=30):
    space = toy_space(100, searcher="tpe")
    return [tpe_point(space, trials, seed=seed)["x"] for seed in range(count)]


def test_it_learns_from_trials_that_wait_at_a_rung():
    near = [x for x in proposals(records(lambda x: "PAUSED", good=6.0)) if abs(x - 6) < 3]
    assert len(near) >= 20  # 30 % of the range, so 9 by chance


def test_it_keeps_away_from_where_trials_diverged():
    trials = records(lambda x: "FAIL" if x > 4 else "PAUSED", good=3.5)
    assert sum(x > 4.5 for x in proposals(trials)) <= 4  # 27 % of the range, so 8 by chance


def test_equal_trials_and_seeds_give_equal_points():
    trials = records(lambda x: "PRUNED", good=0.0)
    assert proposals(trials, 3) == proposals(trials, 3)
    assert len(set(proposals(trials, 3))) == 3
