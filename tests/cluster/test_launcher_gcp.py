"""The Google Cloud file against Google's own description of a machine, which its client brings along."""

import httplib2
import pytest
from googleapiclient.discovery import build
from launcher import EDIT, LAUNCHER, read

CONFIG = read(LAUNCHER / "gcp.yaml")
TYPES = CONFIG["available_node_types"]
SIMPLE = {"string": str, "boolean": bool, "integer": int}


@pytest.fixture(scope="module")
def schemas():
    return build("compute", "v1", http=httplib2.Http(), cache_discovery=False)._rootDesc["schemas"]


def problems(value, schema, schemas, place="machine"):
    """Yield what of a value the description does not know; a 64-bit integer may be given as a number or as text."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object":
        for key, inner in value.items():
            known = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            yield from [f"{place}.{key}"] if known is None else problems(inner, known, schemas, f"{place}.{key}")
    elif schema["type"] == "array":
        for inner in value:
            yield from problems(inner, schema["items"], schemas, f"{place}[]")
    elif not (isinstance(value, SIMPLE[schema["type"]]) or schema.get("format") == "int64"):
        yield f"{place}: must be a {schema['type']}, got {value!r}"
    elif value not in schema.get("enum", [value]):
        yield f"{place}: {value!r}"


@pytest.mark.parametrize("name", TYPES)
def test_a_machine_is_described_in_googles_own_words(name, schemas):
    assert list(problems(TYPES[name]["node_config"], {"$ref": "Instance"}, schemas)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"scheduling": {"provisioningModel": "CHEAP"}},
        {"scheduling": {"preemptable": True}},
        {"tags": {"items": [1]}},
        {"machine": "n"},
    ],
)
def test_other_words_are_noticed(change, schemas):
    assert len(list(problems(TYPES["l4"]["node_config"] | change, {"$ref": "Instance"}, schemas))) == 1


def test_the_head_is_on_demand_and_every_worker_a_spot_machine_that_leaves_nothing_behind():
    for name, kind in TYPES.items():
        scheduling = kind["node_config"].get("scheduling", {})
        assert scheduling.get("provisioningModel") == (None if name == "head" else "SPOT")
        assert scheduling.get("instanceTerminationAction") == (None if name == "head" else "DELETE")
        assert all(disk["autoDelete"] for disk in kind["node_config"]["disks"])


def test_ray_makes_no_key_for_the_whole_project_and_every_machine_is_behind_the_firewalls_tag():
    assert "ssh_private_key" in CONFIG["auth"]
    for kind in TYPES.values():
        machine = kind["node_config"]
        assert {"key": "block-project-ssh-keys", "value": "TRUE"} in machine["metadata"]["items"]
        assert machine["tags"] == {"items": ["fer-search"]}
        assert EDIT in machine["networkInterfaces"][0]["subnetwork"]


def test_workers_are_of_an_account_of_their_own():
    for name, kind in TYPES.items():
        if name != CONFIG["head_node_type"]:
            (account,) = kind["node_config"]["serviceAccounts"]
            assert account["email"].startswith("fer-search-worker@")
