"""The cluster files against Ray's own schema and validators, and cluster.yaml against a simulated AWS.

moto answers as EC2 and IAM would: keys, network, security group and the instances asked for. It starts no machine,
pulls no image and runs no command. Not tested: Google Cloud beyond the schema (its provider
needs packages that the lock lacks).
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = {"aws": ROOT / "cluster.yaml"} | {name: ROOT / f"docs/clusters/{name}.yaml" for name in ("gcp", "local")}
CLOUDS = ["aws", "gcp"]


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(FILES[name].read_text())
    return config


def joined(config: dict[str, Any], key: str) -> str:
    return "\n".join(config[key])


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    validate_config(prepare_config(read(name)))


def test_ray_s_validators_see_a_mistake() -> None:
    broken = read("aws")
    broken["available_node_types"]["gpu_worker"]["min_wrokers"] = 1
    with pytest.raises(Exception, match="min_wrokers"):
        validate_config(prepare_config(broken))


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_is_closed_and_runs_the_locked_environment(name: str) -> None:
    config = read(name)
    head, setup = joined(config, "head_start_ray_commands"), joined(config, "setup_commands")
    assert "--dashboard-host=127.0.0.1" in head
    assert [target for target in config["file_mounts"] if target.endswith(("/.ray/auth_token", "/.ray"))]
    assert "RAY_AUTH_MODE=token" in setup + joined(config.get("docker", {"run_options": []}), "run_options")
    assert "uv sync --locked --no-dev --no-install-project" in setup
    for commands in (head, joined(config, "worker_start_ray_commands")):  # HAProxy's environment is that of `ray start`
        front = re.search(r'eval "\$\(~/env/bin/python (\S+) ~/front\)"; ray start ', commands)
        assert front
        assert front[1] == "~/detector/front.py"


def test_machines_get_the_files_that_their_commands_use() -> None:
    mounts = {target: local for target, local in read("local")["file_mounts"].items() if not local.startswith("~")}
    assert set(mounts) == {f"~/detector/{name}" for name in ("pyproject.toml", "uv.lock", "front.py")}
    assert all((ROOT / local).is_file() for local in mounts.values())


@pytest.mark.parametrize("name", CLOUDS)
def test_containers_mount_folders_with_the_files_that_their_commands_use(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(name)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    subprocess.run(["make", "-C", ROOT, "cluster-files", f"CLUSTER={tmp_path}/.cluster"], check=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    # Docker mounts the inode of a file: a running container would keep the version that rsync then replaces.
    mounts = {target: Path(local).expanduser() for target, local in config["file_mounts"].items()}
    assert mounts
    assert all(local.is_dir() for local in mounts.values())
    folder = mounts["/home/ray/detector"]
    commands = "\n".join(joined(config, key) for key in config if key.endswith("_commands"))
    used = set(re.findall(r"~/detector/(\S+)", commands)) | {"pyproject.toml", "uv.lock"}
    assert {file.name for file in folder.iterdir()} == used
    assert (folder / "uv.lock").read_bytes() == (ROOT / "uv.lock").read_bytes()
    assert folder.name in {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_costs_nothing_while_idle_and_uses_the_lock_s_ray(name: str) -> None:
    config = read(name)
    lock = {row["name"]: row["version"] for row in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    images = {config["docker"]["head_image"], config["docker"]["worker_image"]}
    assert images == {f"rayproject/ray:{lock['ray']}-py311-{kind}" for kind in ("cpu", "gpu")}
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "GPU" not in head["resources"]
    assert {kind["min_workers"] for kind in types.values()} == {0}
    assert 0 < config["idle_timeout_minutes"] <= 15
    scheme = {"aws": "s3", "gcp": "gs"}[name]
    assert len(re.findall(rf"\b{scheme}://", FILES[name].read_text())) == 1


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """cluster.yaml as ``ray up`` bootstraps it, on an AWS that moto plays."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    (tmp_path / ".ssh").mkdir()
    from ray.autoscaler._private.aws import utils
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = prepare_config(read("aws"))
    with moto.mock_aws():
        utils.resource_cache.cache_clear()
        utils.client_cache.cache_clear()
        region = config["provider"]["region"]
        name = config["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]["Name"]
        boto3.client("iam", region_name=region).create_instance_profile(InstanceProfileName=name)
        yield AWSNodeProvider.bootstrap_config(config)
        utils.resource_cache.cache_clear()
        utils.client_cache.cache_clear()


def launch(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """One node of a type, as Ray asks EC2 for it; the instance that moto then knows."""
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    role = "head" if kind == config["head_node_type"] else "worker"
    tags = {TAG_RAY_NODE_KIND: role, TAG_RAY_USER_NODE_TYPE: kind}
    provider.create_node(config["available_node_types"][kind]["node_config"], tags, 1)
    (node,) = provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: kind})
    assert provider.node_tags(node)[TAG_RAY_CLUSTER_NAME] == config["cluster_name"]
    response = boto3.client("ec2", region_name=config["provider"]["region"]).describe_instances(InstanceIds=[node])
    instance: dict[str, Any] = response["Reservations"][0]["Instances"][0]
    return instance


@pytest.mark.parametrize(
    ("kind", "instance_type", "spot"),
    [("head", "m6i.xlarge", False), ("gpu_worker", "g5.2xlarge", True), ("cpu_worker", "m6i.4xlarge", True)],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_aws_is_asked_for_what_the_file_says(aws: dict[str, Any], kind: str, instance_type: str, spot: bool) -> None:
    instance = launch(aws, kind)
    assert instance["InstanceType"] == instance_type
    assert (instance.get("InstanceLifecycle") == "spot") == spot
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags["project"] == "deepfake-faces"
    assert tags["ray-node-type"] == ("head" if kind == "head" else "worker")
    assert instance["IamInstanceProfile"]["Arn"].endswith("/deepfake-faces")
    assert instance["KeyName"]
    assert len(instance["SecurityGroups"]) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_s_security_group_lets_in_ssh_and_its_own_members_only_and_an_operator_can_close_ssh(
    aws: dict[str, Any],
) -> None:
    import boto3

    (group,) = aws["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    client = boto3.client("ec2", region_name=aws["provider"]["region"])
    rules = client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    for rule in rules:
        if rule["IpRanges"]:
            assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
        else:
            assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group]
    name = client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["GroupName"]
    assert f"--group-name {name} " in (ROOT / "docs/clusters/README.md").read_text()
    ssh = {"GroupId": group, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    client.authorize_security_group_ingress(**ssh, CidrIp="203.0.113.7/32")
    client.revoke_security_group_ingress(**ssh, CidrIp="0.0.0.0/0")
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    AWSNodeProvider.bootstrap_config(prepare_config(read("aws")))  # another `ray up`
    rules = client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert [allowed["CidrIp"] for rule in rules for allowed in rule["IpRanges"]] == ["203.0.113.7/32"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_policy_for_aws_is_valid_and_covers_what_the_head_node_asks_for(aws: dict[str, Any]) -> None:
    import boto3

    policy = (ROOT / "docs" / "clusters" / "aws-iam.json").read_text()
    client = boto3.client("iam", region_name=aws["provider"]["region"])
    assert client.create_policy(PolicyName="detector", PolicyDocument=policy)["Policy"]["Arn"]
    statements = {statement["Sid"]: statement for statement in json.loads(policy)["Statement"]}
    image = aws["available_node_types"]["gpu_worker"]["node_config"]["ImageId"]
    parameter = statements["HeadResolvesTheMachineImage"]["Resource"].partition(":parameter")[2].rstrip("*")
    assert image.startswith(f"resolve:ssm:{parameter}")
    profile = aws["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]["Name"]
    assert statements["NodesGetTheSameProfile"]["Resource"].endswith(f":role/{profile}")
    owned = statements["HeadEndsItsOwnNodes"]["Condition"]["StringEquals"]
    assert owned == {"aws:ResourceTag/ray-cluster-name": aws["cluster_name"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_bucket_is_for_the_nodes_and_operators_and_refuses_the_rest(aws: dict[str, Any]) -> None:
    import boto3

    policy = json.loads((ROOT / "docs" / "clusters" / "aws-bucket.json").read_text())
    nodes = json.loads((ROOT / "docs" / "clusters" / "aws-iam.json").read_text())
    region = aws["provider"]["region"]
    # moto checks the syntax of policies without a principal only.
    bare = [{k: v for k, v in statement.items() if k != "Principal"} for statement in policy["Statement"]]
    document = json.dumps({**policy, "Statement": bare})
    assert boto3.client("iam", region_name=region).create_policy(PolicyName="bucket", PolicyDocument=document)
    granted = {one["Sid"]: one["Resource"] for one in nodes["Statement"]}
    bucket, role = [granted["ImagesRunsAndModels"], granted["ListTheBucket"]], granted["NodesGetTheSameProfile"]
    for statement in policy["Statement"]:
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert sorted(statement["Resource"]) == sorted(bucket)
    tls, principals = (statement["Condition"] for statement in policy["Statement"])
    assert tls == {"Bool": {"aws:SecureTransport": "false"}}
    assert role in principals["ArnNotLike"]["aws:PrincipalArn"]
    client = boto3.client("s3", region_name=region)
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": region})
    guide = (ROOT / "docs" / "operate.md").read_text()
    block = re.search(r"put-public-access-block --bucket BUCKET --public-access-block-configuration (\S+)", guide)
    assert block
    settings = {name: value == "true" for name, value in (pair.split("=") for pair in block[1].split(","))}
    client.put_public_access_block(Bucket="bucket", PublicAccessBlockConfiguration=settings)
    assert list(settings.values()) == [True] * 4
    mounted = re.search(r"put-bucket-policy --bucket BUCKET --policy file://(\S+)", guide)
    assert mounted
    client.put_bucket_policy(Bucket="bucket", Policy=(ROOT / mounted[1]).read_text())
    assert json.loads(client.get_bucket_policy(Bucket="bucket")["Policy"]) == policy
