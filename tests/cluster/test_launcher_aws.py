"""The AWS file, through Ray's own AWS provider, on a simulated EC2: which machines it would start, with what rights."""

import json
from fnmatch import fnmatchcase

import boto3
import pytest
from launcher import LAUNCHER, read
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

REGION = "eu-central-1"
POLICY = json.loads((LAUNCHER / "aws_head_policy.json").read_text())
ROLES = ("head", "worker")


@pytest.fixture(scope="module")
def cloud():
    """An account as the README makes it: a security group, a key and the two profiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "simulated")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "simulated")
        with mock_aws():
            ec2, iam = boto3.client("ec2", REGION), boto3.client("iam")
            for role in ROLES:
                iam.create_instance_profile(InstanceProfileName=f"fer-search-{role}-EDIT")
            ec2.create_key_pair(KeyName="fer-search-EDIT")
            yield ec2


@pytest.fixture(scope="module")
def config(cloud):
    """What `ray up` makes of the file in that account."""
    vpc = cloud.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = cloud.create_security_group(GroupName="fer-search", Description="-", VpcId=vpc)["GroupId"]
    config = read(LAUNCHER / "aws.yaml")
    for kind in config["available_node_types"].values():
        kind["node_config"]["SecurityGroupIds"] = [group]
    return _bootstrap_config(config, no_config_cache=True)


@pytest.fixture(scope="module")
def machines(cloud, config):
    """One machine of each type, as EC2 describes it, and what Ray asked of AWS for them."""
    asked = []
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register("before-call", lambda model, **_: asked.append(model))
    for name, kind in config["available_node_types"].items():
        tags = {TAG_RAY_NODE_KIND: "head" if name == "head" else "worker", TAG_RAY_USER_NODE_TYPE: name}
        provider.create_node(kind["node_config"], tags, 1)
    found = {provider.node_tags(node)[TAG_RAY_USER_NODE_TYPE]: node for node in provider.non_terminated_nodes({})}
    described = {
        name: cloud.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]
        for name, node in found.items()
    }
    for node in found.values():
        provider.set_node_tags(node, {"seen": "yes"})
    provider.terminate_nodes([*found.values()])
    return described, {f"{model.service_model.service_id.lower()}:{model.name}" for model in asked}


def test_ray_makes_neither_keys_nor_groups_nor_roles_of_its_own(cloud, config):
    names = [group["GroupName"] for group in cloud.describe_security_groups()["SecurityGroups"]]
    assert sorted(names) == ["default", "fer-search"]
    assert [pair["KeyName"] for pair in cloud.describe_key_pairs()["KeyPairs"]] == ["fer-search-EDIT"]
    assert boto3.client("iam").list_roles()["Roles"] == []


def test_workers_may_be_started_in_every_zone(config, cloud):
    subnets = {each["SubnetId"]: each["AvailabilityZone"] for each in cloud.describe_subnets()["Subnets"]}
    for kind in config["available_node_types"].values():
        zones = [subnets[subnet] for subnet in kind["node_config"]["SubnetIds"]]
        assert zones == config["provider"]["availability_zone"].split(",")


def test_the_head_is_on_demand_and_every_worker_a_spot_machine(machines):
    described, _ = machines
    assert {name: each.get("InstanceLifecycle") for name, each in described.items()} == {
        "head": None,
        "l4": "spot",
        "a10g": "spot",
        "a100": "spot",
    }


def test_a_machine_has_a_role_one_group_and_metadata_that_ask_for_a_session(machines):
    described, _ = machines
    for name, machine in described.items():
        role = "head" if name == "head" else "worker"
        assert machine["IamInstanceProfile"]["Arn"].endswith(f"/fer-search-{role}-EDIT")
        assert [group["GroupName"] for group in machine["SecurityGroups"]] == ["fer-search"]
        assert machine["MetadataOptions"]["HttpTokens"] == "required"


def test_a_types_resources_are_those_that_ec2_says_the_machine_has(config, cloud):
    for name, kind in config["available_node_types"].items():
        if name == "head":
            continue
        kinds = cloud.describe_instance_types(InstanceTypes=[kind["node_config"]["InstanceType"]])
        (described,) = kinds["InstanceTypes"]
        assert kind["resources"]["CPU"] == described["VCpuInfo"]["DefaultVCpus"]
        assert kind["resources"]["GPU"] == sum(gpu["Count"] for gpu in described["GpuInfo"]["Gpus"])


def test_the_heads_role_permits_what_its_autoscaler_asks_of_ec2_and_nothing_to_everyone(machines):
    _, asked = machines
    allowed = [action for each in POLICY["Statement"] for action in each["Action"]]
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"} <= asked
    assert not {action for action in asked if not any(fnmatchcase(action, pattern) for pattern in allowed)}
    assert not [pattern for pattern in allowed if "*" in pattern]
