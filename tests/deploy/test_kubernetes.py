"""deploy/kubernetes: by Kubernetes' own schemas, and what KubeRay adds by a small one of ours; nothing here was run on a cluster.

Where a copy of KubeRay's own schema is named, documents and our schema are compared with it, too:
KUBERAY_CRD=FILE names ray-operator/config/crd/bases/ray.io_rayclusters.yaml of a checkout of KubeRay (tried: commit feeaf72f).
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from policyserver.common.settings import load
from policyserver.server.__main__ import make_parser
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon import _longest_stop_s
from tests.deploy.ray_cluster_schema import RAY_CLUSTER

BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"
FILES = sorted(BASE.glob("*.yaml"))
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
CONFIG_FILE = BASE / "server.toml"
KUBERNETES = "1.33"
OURS = {"ray.io/v1", "kustomize.config.k8s.io/v1beta1"}
"""Kinds of which Kubernetes has no schema."""


def documents() -> Iterator[dict[str, Any]]:
    for name in KUSTOMIZATION["resources"]:
        yield from yaml.safe_load_all((BASE / name).read_text(encoding="utf-8"))


DOCUMENTS = list(documents())
CLUSTER = next(each for each in DOCUMENTS if each["kind"] == "RayCluster")
PODS = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
TEMPLATES: list[dict[str, Any]] = [pod["template"] for pod in PODS]
CONTAINERS = [each for template in TEMPLATES for key in ("initContainers", "containers") for each in template["spec"].get(key, [])]


def selects(selector: dict[str, str], template: dict[str, Any]) -> bool:
    labels: dict[str, str] = template["metadata"]["labels"]
    return selector.items() <= labels.items()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_line_says_that_it_was_never_run(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith(
        ("# Never run: checked by tests", "# Never run, for there was no cluster: tests check it")
    )


def test_the_kustomization_names_every_file() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [file.name for file in FILES if file.name != "kustomization.yaml"]
    assert [KUSTOMIZATION["configMapGenerator"][0]["files"]] == [[CONFIG_FILE.name]]


@pytest.mark.long
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_kubernetes_knows_the_document(document: dict[str, Any]) -> None:
    if document["apiVersion"] not in OURS:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.long
@pytest.mark.parametrize("template", TEMPLATES, ids=["head", "serving"])
def test_the_pods_of_the_ray_cluster_are_pods(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **template["metadata"]}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    wrong = copy.deepcopy(pod)
    wrong["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def faults(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(document)]


def test_a_ray_cluster_has_these_keys() -> None:
    assert faults(RAY_CLUSTER, CLUSTER) == []
    for group in ("headGroupSpec", "workerGroupSpecs"):
        wrong = copy.deepcopy(CLUSTER)
        part = wrong["spec"][group]
        (part if isinstance(part, dict) else part[0])["rayStartParam"] = {}
        assert [fault for fault in faults(RAY_CLUSTER, wrong) if "'rayStartParam' was unexpected" in fault]


@pytest.fixture(scope="module")
def kuberay() -> dict[str, Any]:
    """Return KubeRay's own schema of our kind of RayCluster."""
    file = os.environ.get("KUBERAY_CRD")
    if not file:
        pytest.skip("KUBERAY_CRD names no copy of KubeRay's ray.io_rayclusters.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(Path(file).read_text(encoding="utf-8"), loader)
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if f"ray.io/{each['name']}" == CLUSTER["apiVersion"]]
    return dict(schema)


@pytest.mark.long
def test_kuberay_knows_the_ray_cluster(kuberay: dict[str, Any]) -> None:
    schema = copy.deepcopy(kuberay)
    closed(schema)
    assert faults(schema, CLUSTER) == []
    wrong = copy.deepcopy(CLUSTER)
    wrong["spec"]["headGroupSpec"]["serviceTyp"] = "ClusterIP"
    assert faults(schema, wrong), "it looks"


@pytest.mark.long
def test_kuberay_has_the_keys_that_the_schema_of_the_tests_has(kuberay: dict[str, Any]) -> None:
    def compare(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
        assert ours.get("type", "string") == theirs["type"], where
        assert ours.get("enum") == theirs.get("enum"), where
        if "properties" in ours:
            names = set(theirs["properties"]) - {"status"}
            assert set(ours["properties"]) == names, where
            if where != "RayCluster":  # Kubernetes itself wants what every document has
                assert set(ours["required"]) == set(theirs.get("required", ())), where
            for name in names:
                compare(ours["properties"][name], theirs["properties"][name], f"{where}.{name}")
        if "items" in ours:
            compare(ours["items"], theirs["items"], f"{where}[]")

    compare(RAY_CLUSTER, kuberay, "RayCluster")


def closed(schema: dict[str, Any]) -> None:
    """Refuse keys that the schema does not name, which Kubernetes would drop without a word."""
    if "properties" in schema and schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
        if set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}:
            schema["properties"]["metadata"] = {"type": "object"}
    if schema.get("type") == "object" and schema.get("x-kubernetes-int-or-string"):
        schema.pop("type")
    for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            closed(part)


# Closed off ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=["head", "serving"])
def test_a_pod_runs_as_no_root_and_without_an_account(template: dict[str, Any]) -> None:
    context = template["spec"]["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert template["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_a_container_is_closed_off_and_bounded(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert container["image"] in {image["name"] for image in KUSTOMIZATION["images"]}


def test_secrets_come_from_outside() -> None:
    assert not [each for each in DOCUMENTS if each["kind"] == "Secret"]
    assert "secretGenerator" not in KUSTOMIZATION


# It fits together ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=["head", "serving"])
def test_what_is_mounted_is_there(template: dict[str, Any]) -> None:
    volumes = {each["name"] for each in template["spec"]["volumes"]}
    containers = [each for key in ("initContainers", "containers") for each in template["spec"].get(key, [])]
    assert {mount["name"] for each in containers for mount in each["volumeMounts"]} == volumes


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_stop_has_the_time_that_it_takes(template: dict[str, Any]) -> None:
    assert template["spec"]["terminationGracePeriodSeconds"] > _longest_stop_s(load(ServerConfig, CONFIG_FILE))


def test_services_budgets_and_policies_select_pods() -> None:
    selectors = [each["spec"].get("podSelector", each["spec"].get("selector")) for each in DOCUMENTS if "spec" in each]
    chosen = [each.get("matchLabels", each) for each in selectors if each]
    assert len(chosen) == 5
    for selector in chosen:
        assert any(selects(selector, template) for template in TEMPLATES), selector


def test_the_server_listens_where_the_service_leads_with_the_files_that_are_mounted(tmp_path: Path) -> None:
    text = CONFIG_FILE.read_text(encoding="utf-8")
    if "ray" not in {field.name for field in dataclasses.fields(ServerConfig)}:
        text = re.sub(r"\[ray\]\n(.+\n)+", "", text)
    (tmp_path / "server.toml").write_text(text, encoding="utf-8")
    config = load(ServerConfig, tmp_path / "server.toml")
    runners = config.algorithm.env_runners["num_env_runners"]
    (serving,) = CLUSTER["spec"]["workerGroupSpecs"]
    assert runners == serving["replicas"] == serving["minReplicas"] == serving["maxReplicas"]
    ports = [int(config.listen.address.rpartition(":")[2]) + number for number in range(runners)]
    (service,) = [each for each in DOCUMENTS if each["kind"] == "Service"]
    assert [port["port"] for port in service["spec"]["ports"]] == ports
    (worker,) = serving["template"]["spec"]["containers"]
    assert [port["containerPort"] for port in worker["ports"]] == ports
    (policy,) = [each for each in DOCUMENTS if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("clients")]
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == ports
    for file in (config.listen.tls_certificate_file, config.listen.tls_key_file, config.listen.token_file):
        assert str(file).startswith("/etc/policy-server/secrets/")


def test_the_daemon_s_commands_are_commands_of_the_server() -> None:
    (daemon,) = [each for each in CONTAINERS if each["name"] == "daemon"]
    config = next(mount["mountPath"] for mount in daemon["volumeMounts"] if mount["name"] == "config")
    run_folder = re.search(r'^run_folder = "(.+)"$', CONFIG_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert run_folder
    assert daemon["command"][-1] == f"{config}/{CONFIG_FILE.name}"
    for command in (daemon["command"], *(daemon[probe]["exec"]["command"] for probe in ("startupProbe", "livenessProbe"))):
        program, *arguments = command
        assert program == "policy-server"
        parsed = make_parser().parse_args(arguments)
        assert parsed.command == "serve" or str(parsed.run_folder) == run_folder[1]


@pytest.mark.process
def test_each_pod_makes_its_secrets_readable_by_its_user_alone(tmp_path: Path) -> None:
    """A secret's files belong to root, and to the pod's group by `fsGroup`, which the server refuses: so they are copied."""
    commands = [each["command"] for template in TEMPLATES for each in template["spec"]["initContainers"]]
    assert len(commands) == len(TEMPLATES)
    assert commands[0] == commands[1]
    for name in ("tls/tls.crt", "tls/tls.key", "token/token"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name, encoding="utf-8")
        (tmp_path / "from" / name).chmod(0o440)
    (tmp_path / "to").mkdir()
    here = [
        word.replace("/mnt/secrets", f"{tmp_path}/from").replace("/etc/policy-server/secrets", f"{tmp_path}/to") for word in commands[0]
    ]
    subprocess.run(here, check=True)
    for name in ("tls.crt", "tls.key", "token"):
        assert stat.S_IMODE((tmp_path / "to" / name).stat().st_mode) == 0o600
