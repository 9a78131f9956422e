"""The files for Kubernetes and containers: valid by the real schemas, closed, and of one set of versions."""

import copy
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kubernetes"
MANIFESTS = sorted([*KUBERAY.glob("*.yaml"), *(CLUSTER / "mlflow" / "kubernetes").glob("*.yaml")])
CORE = ("v1", "apps/v1", "networking.k8s.io/v1")
CRDS = os.environ.get("KUBERAY_CRDS")  # a directory with KubeRay's config/crd/bases


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def all_of(kind=None):
    found = [document for path in MANIFESTS for document in documents(path)]
    return [document for document in found if kind is None or document["kind"] == kind]


def pod_templates():
    """Return every pod that the manifests make, by name."""
    found = {each["metadata"]["name"]: each["spec"]["template"] for each in all_of() if each["kind"] in WORKLOADS}
    (cluster,) = all_of("RayCluster")
    groups = {
        "head": cluster["spec"]["headGroupSpec"],
        **{g["groupName"]: g for g in cluster["spec"]["workerGroupSpecs"]},
    }
    return found | {name: group["template"] for name, group in groups.items()}


WORKLOADS = ("Deployment", "StatefulSet")
PODS = pod_templates()


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(each, id=f"{each['kind']} {each['metadata']['name']}")
        for each in all_of()
        if each["apiVersion"] in CORE
    ],
)
def test_a_core_manifest_is_valid_by_kubernetes_own_schema(document):
    kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_the_pods_of_every_workload_and_of_the_ray_cluster_are_valid_pods(name):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PODS[name]["spec"]}
    kubernetes_validate.validate(pod, "1.33", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_no_pod_runs_as_root_or_may_become_it(name):
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] >= 999
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_secrets_are_only_referred_to():
    for name, template in PODS.items():
        for container in template["spec"]["containers"]:
            for variable in container.get("env", ()):
                if re.search("PASSWORD|SECRET|TOKEN|USERNAME", variable["name"]):
                    assert set(variable) == {"name", "valueFrom"}, (name, variable)
    assert not all_of("Secret")
    assert all(
        line.endswith("=") for line in (CLUSTER / "mlflow" / ".env.example").read_text().splitlines() if "PASS" in line
    )


def test_rays_own_reading_of_the_cluster_is_a_head_without_trials_and_spot_gpus_from_none_on():
    (cluster,) = all_of("RayCluster")
    cluster = copy.deepcopy(cluster)
    cluster["metadata"]["namespace"] = "fer-search"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == types["headgroup"]["resources"]["GPU"] == 0
    gpu = types["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 32)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (8, 1)
    spec = cluster["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["gcsFaultToleranceOptions"]["redisAddress"] == "redis:6379"


@pytest.mark.skipif(CRDS is None, reason="KUBERAY_CRDS does not name a directory with KubeRay's CRDs")
@pytest.mark.parametrize(
    ("name", "crd"), [("cluster.yaml", "ray.io_rayclusters.yaml"), ("search.yaml", "ray.io_rayjobs.yaml")]
)
def test_kuberays_manifests_are_valid_by_its_crds_to_the_last_key(name, crd):
    versions = yaml.safe_load((Path(CRDS) / crd).read_text())["spec"]["versions"]
    schema = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    make_strict(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    (document,) = documents(KUBERAY / name)
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "spec": {**document["spec"], "misspelled": 1}}, schema)


def make_strict(schema):
    """Let a CRD's schema refuse keys that it does not know, and take what it calls an int or a string."""
    if isinstance(schema, list):
        for each in schema:
            make_strict(each)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    if schema.pop("x-kubernetes-int-or-string", None):
        for key in ("type", "pattern", "anyOf"):
            schema.pop(key, None)
    for each in schema.values():
        make_strict(each)


def test_pods_that_search_reach_the_shared_directory_and_the_settings_that_the_kustomization_makes():
    settings = yaml.safe_load((KUBERAY / "kustomization.yaml").read_text())["configMapGenerator"][0]
    runs = dict(line.split("=", 1) for line in settings["literals"])["FER_SEARCH_RUNS"]
    for name in ("head", "gpu"):
        (container,) = PODS[name]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": settings["name"]}}]
        places = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "shared"]
        assert any(Path(runs).is_relative_to(place) for place in places)
    names = {volume["name"] for volume in PODS["gpu"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= names
    claims = {each["metadata"]["name"] for each in all_of("PersistentVolumeClaim")}
    for template in PODS.values():
        for volume in template["spec"].get("volumes", ()):
            assert volume.get("persistentVolumeClaim", {"claimName": "fer-search"})["claimName"] in claims


def test_every_service_that_listens_to_others_has_a_policy_that_says_to_whom():
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in all_of("NetworkPolicy")]
    for service in all_of("Service"):
        assert service["spec"]["selector"] in selected
    assert {"ray.io/cluster": "fer-search"} in selected


def constraints():
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_versions_that_nodes_are_built_with_are_those_that_the_package_allows():
    pinned = constraints()
    required = [Requirement(text) for text in metadata.requires("fer-search")]
    required = [each for each in required if each.marker is None or each.marker.evaluate({"extra": "weights"})]
    assert len(required) > 15
    for requirement in required:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
    (cluster,) = all_of("RayCluster")
    assert cluster["spec"]["rayVersion"] == pinned["ray"]


def test_the_image_has_a_python_that_the_package_allows_and_the_tags_are_the_packages_version():
    text = (CLUSTER / "container" / "Dockerfile").read_text()
    python = re.search(r"ARG PYTHON=(\S+)", text)[1]
    project = metadata.metadata("fer-search")
    assert python in Requirement(f"python{project['Requires-Python']}").specifier
    tags = re.findall(r"fer-search:(\d\S*?)-[cg]pu", text + (CLUSTER / "mlflow" / "compose.yaml").read_text())
    for kustomization in CLUSTER.rglob("kustomization.yaml"):
        tags += [image["newTag"].rpartition("-")[0] for image in yaml.safe_load(kustomization.read_text())["images"]]
    assert set(tags) == {project["Version"]}


def test_the_dockerfile_has_no_known_weakness():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, CLUSTER / "container" / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_binds_to_loopback_takes_no_secret_from_the_file_and_keeps_the_database_inside():
    compose = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text())
    (ports,) = [service["ports"] for service in compose["services"].values() if "ports" in service]
    assert ports == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]
    assert compose["networks"][compose["services"]["database"]["networks"][0]] == {"internal": True}
    example = (CLUSTER / "mlflow" / ".env.example").read_text()
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET", name):
                variable = re.fullmatch(r"\$\{(\w+):\?in \.env\}", value)[1]
                assert f"{variable}=\n" in example
