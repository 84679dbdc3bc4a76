"""The Kubernetes manifests against the published schemas: Kubernetes' own, and the Prometheus Operator's.

The Operator's come as classes that were made from its definitions. They let unknown fields pass, as a cluster does that prunes
them in silence; here they are refused.
"""

from functools import cache
from typing import Any

import pytest

from tests.deploy.support import DEPLOY, check, documents

pytestmark = pytest.mark.clients
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
MANIFESTS = [(path.name, document) for path in sorted(KUBERNETES.glob("*.yaml")) for document in documents(path)]
NAMED = {(document["kind"], document["metadata"]["name"]): document for _, document in MANIFESTS}


@cache
def operators(kind: str) -> Any:
    """A validator for a kind of the Operator's."""
    import jsonschema
    from cloudcoil.models.prometheus_operator import v1

    return jsonschema.Draft202012Validator(closed(getattr(v1, kind).model_json_schema()))


def closed(schema: Any) -> Any:
    """The schema with every object that lists its fields closed to others; metadata is Kubernetes' own."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return inner | {"additionalProperties": False} if "properties" in inner and inner.get("type") == "object" else inner


def judge(document: dict) -> None:
    """Raise where a manifest is not what its schema says."""
    import kubernetes_validate

    if document["apiVersion"].startswith("monitoring.coreos.com/"):
        operators(document["kind"]).validate(document)
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize(
    ("name", "document"), MANIFESTS, ids=[f"{name}-{document['kind']}" for name, document in MANIFESTS]
)
def test_a_manifest_is_as_its_schema_says(name, document):
    """No unknown field, no missing one, no wrong type."""
    judge(document)


def test_a_wrong_field_is_seen_in_both_kinds_of_schema():
    """What was misspelt here on purpose is refused, so that the test above can fail."""
    import copy

    wrong = copy.deepcopy(NAMED["Deployment", "demo"])
    wrong["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    with pytest.raises(Exception, match="portz"):
        judge(wrong)
    wrong = copy.deepcopy(NAMED["PodMonitor", "demo"])
    wrong["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    with pytest.raises(Exception, match="intervall"):
        judge(wrong)


def test_every_worker_is_scraped():
    """As many ports as workers, from the first of workers.py on, each in the PodMonitor and open to the scraper only."""
    pod = NAMED["Deployment", "demo"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    workers = int(container["args"][container["args"].index("--workers") + 1])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    scraped = [f"metrics-{worker}" for worker in range(workers)]
    assert [ports[name] for name in scraped] == [9464 + worker for worker in range(workers)]
    assert {name for name in ports if name.startswith("metrics")} == set(scraped)
    monitor = NAMED["PodMonitor", "demo"]["spec"]
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == scraped
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    everybody, scraper = NAMED["NetworkPolicy", "demo"]["spec"]["ingress"]
    assert [port["port"] for port in everybody["ports"]] == ["http"]
    assert [port["port"] for port in scraper["ports"]] == scraped


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
            assert ("ConfigMap", volume["configMap"]["name"]) in NAMED
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_collectors_configuration_is_the_checked_one():
    """Read back as YAML, it is deploy/collector's file to the letter."""
    data = NAMED["ConfigMap", "collector"]["data"]
    assert data == {"gateway.yaml": (DEPLOY / "collector" / "gateway.yaml").read_text()}


def test_made_files_are_up_to_date():
    """`deploy/build.py --check`."""
    import sys

    check(sys.executable, DEPLOY / "build.py", "--check")
