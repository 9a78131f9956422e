import io

import pytest
import timm
from rich.console import Console

from fer_search.costs import COSTS
from fer_search.errors import InvalidInput
from fer_search.journal import TrialRecord
from fer_search.recipe import Recipe
from fer_search.report_choice import agreement_line, seeds_table, tradeoffs_table
from fer_search.tradeoffs import MEASURES, Tradeoff, measure_of, tradeoffs

PLAIN = {"pretrained": False, "stem_stride": 2, "fusion_width": 0}


def trial(number, accuracy, backbone, *, state="COMPLETE", **changes):
    parameters = Recipe().replace({**PLAIN, "backbone": backbone, **changes}).model_dump()
    return TrialRecord(number, parameters, 0.0, state=state, epochs=[{"val_accuracy": accuracy}])


@pytest.fixture
def trials():
    """Two sizes of network: trial 0 is as large as trial 3 and worse; trial 2 did not reach the horizon."""
    return [
        trial(0, 0.6, "test_resnet"),
        trial(1, 0.5, "test_efficientnet", emotion_heads_weight=0.3, auxiliary_weight=0.2),
        trial(2, 0.9, "test_efficientnet", state="PRUNED"),
        trial(3, 0.7, "test_resnet", dropout=0.1, max_lr=0.01),
    ]


def test_parameters_are_those_of_the_timm_network_whatever_heads_only_its_training_had(trials):
    found = {each.trial: each for each in tradeoffs(trials, metric="val_accuracy", cost="parameters", source="journal")}
    for number, backbone in ((0, "test_resnet"), (1, "test_efficientnet"), (3, "test_resnet")):
        network = timm.create_model(backbone, in_chans=1, num_classes=7)
        assert found[number].cost == sum(parameter.numel() for parameter in network.parameters())
    assert list(found) == sorted(found, key=lambda number: (found[number].cost, -found[number].value))
    assert {number for number, each in found.items() if each.on_front} == {1, 3}


def test_trials_with_the_same_network_have_one_latency(trials):
    first, second = tradeoffs([trials[0], trials[3]], metric="val_accuracy", cost="latency", source="journal")
    assert first.cost == second.cost > 0
    assert [first.trial, second.trial] == [3, 0]
    assert [first.on_front, second.on_front] == [True, False]


def test_flops_do_not_depend_on_the_heads_of_training():
    pair = [trial(0, 0.5, "test_resnet"), trial(1, 0.5, "test_resnet", emotion_heads_weight=0.3)]
    first, second = tradeoffs(pair, metric="val_accuracy", cost="flops", source="journal")
    assert first.cost == second.cost > 1e5
    assert first.on_front
    assert second.on_front


def test_what_a_search_recorded_is_shown_and_not_measured_anew(trials):
    for each in trials:
        each.cost = 10.0 + each.number
    found = tradeoffs(trials, metric="val_accuracy", cost="latency", source="journal", recorded=True)
    assert [(each.trial, each.cost, each.on_front) for each in found] == [(0, 10, True), (1, 11, False), (3, 13, True)]


def test_every_cost_has_its_measure_which_takes_a_complete_parameter_set(trials):
    assert list(MEASURES) == list(COSTS)
    (found,) = tradeoffs(trials[:1], metric="val_accuracy", cost="flops", source="journal")
    assert measure_of("flops")(trials[0].parameters) == found.cost


def test_another_cost_is_refused(trials):
    with pytest.raises(InvalidInput, match="cost: must be one of parameters, flops, latency, got 'price'"):
        tradeoffs(trials, metric="val_accuracy", cost="price", source="journal")


def lines(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_the_front_is_marked_in_the_table():
    rows = [Tradeoff(3, 0.61, 1_234_567, on_front=True), Tradeoff(7, 0.6, 2_000_000, on_front=False)]
    shown = lines(tradeoffs_table(rows, metric="val_accuracy", cost="parameters"))
    assert ["3", "*", "1,234,567", "61.0%"] in shown
    assert ["7", "2,000,000", "60.0%"] in shown


def test_seeds_are_shown_with_their_means_and_the_exported_one_is_marked():
    figures = {"mean": 0.65, "deviation": 0.01, "interval": (0.64, 0.66)}
    none = {"mean": 0.5, "deviation": None, "interval": None}
    seeds = {
        "trainings": [{"seed": 11, "exported": True, "validation": 0.65, "public": 0.5}],
        "splits": {"validation": figures, "public": none},
    }
    shown = lines(seeds_table(seeds))
    assert ["11*", "65.00%", "50.00%"] in shown
    assert ["mean", "65.00%", "50.00%"] in shown
    assert ["deviation", "1.00"] in shown
    assert ["95", "%", "interval", "64.00", "-", "66.00"] in shown


def test_rank_agreement_is_told_with_its_interval_or_what_it_lacks():
    found = {"agreement": None, "long": {3: 0.7}, "epochs": 300, "short_from": "search"}
    assert agreement_line(found, name="first") == (
        "whether the search ranks as long trainings do can be told from three of them on; there is one, of 300 "
        "epochs (fer-search retrain first --trial N --epochs 300)"
    )
    agreement = {"tau": 0.6, "p_value": 0.2333, "interval": (-0.12, 0.91)}
    found = {"agreement": agreement, "long": dict.fromkeys(range(5), 0.7), "epochs": 300, "short_from": "race"}
    assert agreement_line(found, name="first") == (
        "rank agreement of 5 configurations, race against 300 epochs: "
        "Kendall's tau 0.60 (95 % interval -0.12 to 0.91, p = 0.23)"
    )
