"""The configurations, each judged by the tool that it is for; where there is none to be had, by its structure.

No image is pulled and no collector is run: the collector's own `validate` is not in a package registry. So of its
files only this is known: that they hang together, and use the components and settings that are listed here.
"""

import re

import pytest
import yaml

from obsloop.service.routes import ROUTES
from tests.deploy.documents import documents
from tests.deploy.support import DEPLOY, ROOT, check
from tests.parts import needed

pytestmark = pytest.mark.clients
IMAGE = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*$")


def test_compose_knows_the_stack_and_publishes_on_loopback_only():
    """docker-compose resolves the file; every image is pinned to a version; every port is this machine's own."""
    text = check(needed("docker-compose", "docker-compose"), "-f", DEPLOY / "compose.yaml", "config")
    services = yaml.safe_load(text)["services"]
    assert {"demo", "load", "prometheus", "alertmanager", "alerts", "collector", "tempo", "grafana"} == set(services)
    for name, service in services.items():
        assert service["image"] == "obsloop-demo" or IMAGE.match(service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for volume in service.get("volumes", ()):
            if volume.startswith("/"):
                source = volume.split(":")[0]
                assert volume.endswith(":ro"), volume
                assert source.startswith(f"{ROOT}/dashboards/") or (ROOT / source).exists(), volume


def test_what_compose_names_is_there_under_that_name():
    """Who is asked by name is a service, and listens where it is asked."""
    services = documents(DEPLOY / "compose.yaml")[0]["services"]
    asked = {"prometheus/compose.yml", "compose/alertmanager.yml", "compose/grafana/datasources.yaml", "compose.yaml"}
    urls = [
        found
        for path in sorted(asked)
        for found in re.findall(r'(?:http://|")([a-z]+):(\d+)', (DEPLOY / path).read_text())
    ]
    known = {
        "demo": {"8000", "9464"}, "prometheus": {"9090"}, "alertmanager": {"9093"}, "alerts": {"9094"},
        "collector": {"4318", "8888"}, "tempo": {"3200"}, "localhost": {"9090"},
    }  # fmt: skip
    assert len(urls) >= 8
    for host, port in urls:
        assert port in known[host], f"{host}:{port}"
        assert host == "localhost" or host in services
    assert services["collector"]["environment"]["TRACE_STORE"] == "tempo:4317"


def test_the_image_copies_what_is_there_and_is_allowed_to_be_sent():
    """Each COPY of the Dockerfile names files that exist and that the ignore file lets through; not root runs it."""
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE)]
    allowed = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    names = [name for names in copied for name in names]
    assert {"obsloop", "exporters", "demo/app.py", "deploy/requirements.txt"} <= set(names)
    for name in names:
        assert (ROOT / name).exists(), name
        assert name.split("/")[0] in allowed or any((ROOT / name) in ROOT.glob(each) for each in allowed), name
    assert all(IMAGE.match(image) for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    pins = [line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins), pins


@pytest.mark.parametrize("name", ["compose.yml", "agent.yml", "aggregate.yml"])
def test_promtool_accepts_the_configuration(name, tmp_path):
    """With a rule file where it will lie, so that the path is looked at too."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(
        "groups: [{name: a, rules: [{record: 'job:up:sum', expr: sum(up)}]}]\n"
    )
    config = tmp_path / name
    config.write_text((DEPLOY / "prometheus" / name).read_text())
    options = ["--agent"] if name == "agent.yml" else []
    said = check(needed("promtool", "prometheus"), "check", "config", *options, config)
    assert "1 rules found" in said or name == "agent.yml", said


def test_promtool_refuses_a_rule_in_an_agent(tmp_path):
    """That agents evaluate none is why there are two ways; the tool knows it, so the test above can fail."""
    config = tmp_path / "agent.yml"
    config.write_text((DEPLOY / "prometheus" / "agent.yml").read_text() + "rule_files: [rules/*.yaml]\n")
    with pytest.raises(AssertionError, match="rule_files"):
        check(needed("promtool", "prometheus"), "check", "config", "--agent", config)


def test_amtool_accepts_the_routes():
    """And every alert, however severe, is printed."""
    amtool, config = needed("amtool", "alertmanager"), DEPLOY / "compose" / "alertmanager.yml"
    assert "SUCCESS" in check(amtool, "check-config", config)
    for severity in ("critical", "warning", "info"):
        routed = check(amtool, "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
        assert routed.strip().splitlines()[-1] == "printed"


COMPONENTS = {
    "receivers": {"otlp": {"protocols"}},
    "processors": {
        "memory_limiter": {
            "check_interval", "limit_percentage", "spike_limit_percentage", "limit_mib", "spike_limit_mib",
        },
        "batch": {"send_batch_size", "send_batch_max_size", "timeout"},
        "tail_sampling": {"decision_wait", "num_traces", "expected_new_traces_per_sec", "policies"},
        "resourcedetection": {"detectors", "system", "override"},
    },
    "exporters": {
        "otlp": {"endpoint", "tls", "retry_on_failure", "sending_queue"},
        "otlphttp": {"endpoint", "tls", "retry_on_failure", "sending_queue"},
        "loadbalancing": {"routing_key", "protocol", "resolver"},
    },
    "extensions": {"health_check": {"endpoint"}},
}  # fmt: skip
"""The collector's components that are used, with those of their settings that are, as its documentation names them."""


@pytest.mark.parametrize("name", ["gateway", "agent"])
def test_a_collectors_parts_hang_together(name):
    """Every part is known, with known settings, and used; memory is limited first, and batches are made last."""
    (config,) = documents(DEPLOY / "collector" / f"{name}.yaml")
    assert set(config) == {*COMPONENTS, "service"}
    pipelines = config["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics"}
    for kind, known in COMPONENTS.items():
        for part, settings in config[kind].items():
            assert set(settings) <= known[part], part
        used = (
            config["service"]["extensions"]
            if kind == "extensions"
            else [part for p in pipelines.values() for part in p[kind]]
        )
        assert set(used) == set(config[kind])
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_blocked_traces_are_kept_whole():
    """The gateway decides by an attribute that obsloop's slow spans have, and agents send a trace to one gateway."""
    (gateway,) = documents(DEPLOY / "collector" / "gateway.yaml")
    policies = {policy["name"]: policy for policy in gateway["processors"]["tail_sampling"]["policies"]}
    wanted = policies["blocked"]["string_attribute"]
    assert wanted["enabled_regex_matching"] is True
    assert all(any(re.search(value, cause) for value in wanted["values"]) for cause in ("cpu", "gil", "unknown"))
    assert wanted["key"] == "asyncio.eventloop.block.cause"
    (agent,) = documents(DEPLOY / "collector" / "agent.yaml")
    assert agent["exporters"]["loadbalancing"]["routing_key"] == "traceID"
    assert "tail_sampling" not in agent["processors"]


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("compose/**/*.yaml")), ids=lambda path: path.name)
def test_what_no_tool_here_knows_is_yaml_at_least(path):
    """Tempo's configuration and Grafana's provisioning: read, no key twice. More is not known of them."""
    assert documents(path)


def test_alloy_scrapes_what_the_service_serves():
    """The path is the service's, the ports are the workers', and the time-out leaves room for a profile."""
    text = (DEPLOY / "alloy" / "profiles.alloy").read_text()
    [path] = re.findall(r'^ +path += "([^"]+)"', text, re.MULTILINE)
    assert ROUTES[path].thread == "profile"
    assert re.findall(r'"__address__" = "127\.0\.0\.1:(\d+)"', text) == ["9464", "9465"]
    interval, timeout = (
        int(re.findall(rf'{name} += "(\d+)s"', text)[0]) for name in ("scrape_interval", "scrape_timeout")
    )
    assert interval - 1 <= 60 < timeout  # with `delta`, Alloy asks for one second less than the interval
    assert text.count("{") == text.count("}")
