"""How MLflow's table and charts of runs show the trials of a search: a saved view, which a link opens.

MLflow's UI keeps a view in a tag of the experiment: its filter, order, columns and charts as the JSON of the UI's own
state, deflated. It is listed under "Saved views" above the runs. Loads nothing of MLflow.
"""

import base64
import json
import zlib
from typing import Any

from fer_search.search_result import SearchResult

TAG = "mlflow.sharedViewState."
"""What the tag's key begins with; the view's id follows."""
SECTION = "search"
CURVES_OF = 20
"""How many trials a chart shows curves of."""


def saved_view(result: SearchResult) -> tuple[str, str]:
    """Return the id of a search's view and what its tag says: the trials, best first, beside what was searched."""
    view_id = result.settings["search_id"]
    created = int(1000 * min((trial.started for trial in result.trials), default=0.0))
    state = base64.b64encode(zlib.compress(json.dumps(_state(result)).encode())).decode()
    view = {"name": f"{result.name}: trials", "createdAt": created, "updatedAt": created, "state": f"deflate;{state}"}
    return view_id, json.dumps(view)


def _state(result: SearchResult) -> dict[str, Any]:
    metric, searched = result.space.metric, result.space.searched
    columns = [
        *(_column("tags", name) for name in ("rank", "best")),
        _column("metrics", metric),
        _column("metrics", "race_mean"),
        *(_column("params", name) for name in searched),
    ]
    charts = [
        {
            **_chart("parallel", "PARALLEL"),
            "selectedParams": list(searched),
            "selectedMetrics": [metric],
            "showAllRuns": False,
        },
        {
            **_chart("curves", "LINE"),
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "lineSmoothness": 0,
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "range": {},
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
            "displayName": metric,
        },
        *(
            {
                **_chart(f"scatter-{name}", "SCATTER"),
                "xaxis": {"key": name, "type": "PARAM"},
                "yaxis": {"key": metric, "type": "METRIC"},
            }
            for name in searched
        ),
    ]
    return {
        "searchFilter": f"tags.`fer_search.search_id` = '{result.settings['search_id']}' AND tags.kind = 'trial'",
        "orderByKey": _column("metrics", metric),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": SECTION, "name": f"Search {result.name}", "display": True, "isReordered": True},
            {"uuid": "model", "name": "Model metrics", "display": False, "isReordered": False},
            {"uuid": "system", "name": "System metrics", "display": False, "isReordered": False},
        ],
        "isAccordionReordered": True,
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _chart(name: str, kind: str) -> dict[str, Any]:
    return {
        "uuid": name,
        "type": kind,
        "runsCountToCompare": CURVES_OF,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
    }
