"""The Kubernetes manifests against Kubernetes' published schemas; the Prometheus Operator's kinds by a list of fields.

The Operator's definitions are in no package that could be installed beside the tests (the one there is brings a pytest
plugin that does not load). So of PodMonitor and PrometheusRule only this is known: no field but those listed here.
"""

import copy
import re
import sys
from typing import Any

import pytest
import yaml

from obsloop.base.address import PATHS, parse_addresses
from tests.deploy.documents import documents
from tests.deploy.support import DEPLOY, check

pytestmark = pytest.mark.clients
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
MANIFESTS = [(path.name, document) for path in sorted(KUBERNETES.glob("*.yaml")) for document in documents(path)]
NAMED = {(document["kind"], document["metadata"]["name"]): document for _, document in MANIFESTS}


#: The fields of the Prometheus Operator's kinds that are used here, by path; "[]" is each element of a list.
OPERATORS = {
    "PodMonitor": {
        "spec": {"selector", "jobLabel", "sampleLimit", "podMetricsEndpoints"},
        "spec.selector": {"matchLabels"},
        "spec.podMetricsEndpoints[]": {"port", "interval"},
    },
    "PrometheusRule": {
        "spec": {"groups"},
        "spec.groups[]": {"name", "interval", "rules"},
        "spec.groups[].rules[]": {"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"},
    },
}


def elements(value: Any, path: str) -> list[dict]:
    """What is at a path."""
    found = [value]
    for part in path.split("."):
        name, is_list = part.removesuffix("[]"), part.endswith("[]")
        found = [each[name] for each in found if name in each]
        if is_list:
            found = [each for several in found for each in several]
    return found


def judge(document: dict) -> None:
    """Raise where a manifest is not what its schema says, or the list above."""
    if not document["apiVersion"].startswith("monitoring.coreos.com/"):
        import kubernetes_validate

        kubernetes_validate.validate(document, VERSION, strict=True)
        return
    assert document["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    for path, known in OPERATORS[document["kind"]].items():
        found = elements(document, path)
        assert found, path
        for each in found:
            assert set(each) <= known, f"{path}: {set(each) - known}"


@pytest.mark.parametrize(
    ("name", "document"), MANIFESTS, ids=[f"{name}-{document['kind']}" for name, document in MANIFESTS]
)
def test_a_manifest_is_as_its_schema_says(name, document):
    """No unknown field, no missing one, no wrong type."""
    judge(document)


def test_a_wrong_field_is_seen_in_both_kinds_of_schema():
    """What was misspelt here on purpose is refused, so that the test above can fail."""
    wrong = copy.deepcopy(NAMED["Deployment", "demo"])
    wrong["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    with pytest.raises(Exception, match="portz"):
        judge(wrong)
    wrong = copy.deepcopy(NAMED["PodMonitor", "demo"])
    wrong["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    with pytest.raises(Exception, match="intervall"):
        judge(wrong)


def test_a_pod_has_one_port_for_the_metrics_of_all_workers():
    """The PodMonitor and the annotations that may take its place scrape that port; it is open to the scraper only."""
    pod = NAMED["Deployment", "demo"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert container["args"][container["args"].index("--workers") + 1] == "4"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "metrics": 9464}
    monitor = NAMED["PodMonitor", "demo"]["spec"]
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["metrics"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    everybody, scraper = NAMED["NetworkPolicy", "demo"]["spec"]["ingress"]
    assert [port["port"] for port in everybody["ports"]] == ["http"]
    assert [port["port"] for port in scraper["ports"]] == ["metrics"]


def test_the_annotations_can_be_put_in():
    """With their marks of a comment removed, the manifest is still valid, and they lead to the metrics."""
    text = (KUBERNETES / "application.yaml").read_text()
    text, lines = re.subn(r"^      # (annotations:|  prometheus\.io/.*)$", r"      \1", text, flags=re.MULTILINE)
    assert lines == 4
    for document in yaml.safe_load_all(text):
        judge(document)
        if document["kind"] == "Deployment":
            assert document["spec"]["template"]["metadata"]["annotations"] == {
                "prometheus.io/scrape": "true", "prometheus.io/port": "9464", "prometheus.io/path": "/metrics",
            }  # fmt: skip


def test_other_machines_reach_metrics_and_health_only():
    """At the pod's address are /metrics and /healthz; /slow and /tasks are on its loopback. IPv6 needs brackets."""
    container = NAMED["Deployment", "demo"]["spec"]["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry for entry in container["env"]}
    assert variables["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    # Kubernetes knows only the variables above this one.
    names = list(variables)
    assert names.index("POD_IP") < names.index("OBSLOOP_ADDRESS")
    text = variables["OBSLOOP_ADDRESS"]["value"]
    for pod, written in (("10.1.2.3", "$(POD_IP)"), ("fd00::5", "[$(POD_IP)]")):
        public, local = parse_addresses(text.replace("$(POD_IP)", written).replace("$(POD_IP)", pod))
        assert (public.host, public.port, public.paths) == (pod, 9464, ("/metrics", "/healthz"))
        assert (local.host, local.port, local.paths) == ("127.0.0.1", 9464, PATHS)


def test_the_group_has_a_folder_that_it_can_write_to():
    """The root file system is read-only, and the user is not root: the workers' folder is in a volume in memory."""
    pod = NAMED["Deployment", "demo"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    (runtime,) = [entry["value"] for entry in container["env"] if entry["name"] == "XDG_RUNTIME_DIR"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], runtime)
    assert volume["emptyDir"]["medium"] == "Memory"


def test_services_and_volumes_point_at_something():
    """What a Service selects is a pod's label and port; a ConfigMap that is mounted is among the files."""
    pods = [d["spec"]["template"] for (kind, _), d in NAMED.items() if kind == "Deployment"]
    for (kind, name), document in NAMED.items():
        if kind == "Service":
            wanted = document["spec"]["selector"].items()
            (pod,) = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
            known = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= known, name
    for pod in pods:
        for volume in pod["spec"].get("volumes", ()):
            assert "emptyDir" in volume or ("ConfigMap", volume["configMap"]["name"]) in NAMED
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_collectors_configuration_is_the_checked_one():
    """Read back as YAML, it is deploy/collector's file to the letter."""
    data = NAMED["ConfigMap", "collector"]["data"]
    assert data == {"gateway.yaml": (DEPLOY / "collector" / "gateway.yaml").read_text()}


def test_made_files_are_up_to_date():
    """`deploy/build.py --check`."""
    check(sys.executable, DEPLOY / "build.py", "--check")
