"""Makes the Kubernetes files that repeat what is written elsewhere, so that nothing is written twice.

    python deploy/build.py [--check]

From the dashboards, rules and alerts (dashboards/) and the collector's configuration (deploy/collector/). `--check`
writes nothing, and fails when a committed file is not what would be written. Text goes in as it is: no YAML is read,
so nothing needs to be installed; the tests read it back as YAML and compare.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DASHBOARDS = ROOT / "dashboards" / "generated"
KUBERNETES = ROOT / "deploy" / "kubernetes"
NAMESPACE = "obsloop-demo"
#: What etcd takes in one object, with room for what the API server adds.
LIMIT = 1_000_000
HEAD = "# Made by deploy/build.py from {sources}: change those.\n"


class BuildError(Exception):
    """A source is not as expected; the message says which, and what was expected."""


def main() -> int:
    """Write the files, or say which are stale; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    stale = 0
    try:
        for path, text in files():
            if path.exists() and path.read_text() == text:
                continue
            stale += 1
            if check:
                print(f"stale: {path.relative_to(ROOT)}; run python deploy/build.py", file=sys.stderr)
            else:
                path.write_text(text)
                print(f"wrote {path.relative_to(ROOT)}")
    except (BuildError, OSError) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 1 if check and stale else 0


def files() -> Iterator[tuple[Path, str]]:
    """Each file that is made, and its text."""
    gateway = ROOT / "deploy" / "collector" / "gateway.yaml"
    yield KUBERNETES / "collector-config.yaml", config_map("collector", {}, gateway)
    boards = sorted(DASHBOARDS.glob("*.json"))
    if not boards:
        raise BuildError(f"no dashboard in {DASHBOARDS.relative_to(ROOT)}; run python dashboards/build.py first")
    yield KUBERNETES / "prometheusrule.yaml", prometheus_rule(DASHBOARDS / "rules.yaml", DASHBOARDS / "alerts.yaml")
    # Grafana's sidecar takes every ConfigMap with this label.
    yield KUBERNETES / "dashboards.yaml", config_map("obsloop-dashboards", {"grafana_dashboard": "1"}, *boards)


def prometheus_rule(*sources: Path) -> str:
    """The groups of all of them in one PrometheusRule."""
    text = heading(*sources) + textwrap.dedent(f"""\
        apiVersion: monitoring.coreos.com/v1
        kind: PrometheusRule
        metadata:
          name: obsloop
          namespace: {NAMESPACE}
        spec:
          groups:
        """)
    for source in sources:
        before, key, groups = source.read_text().partition("groups:\n")
        if not key or any(line and not line.startswith("#") for line in before.splitlines()):
            raise BuildError(f"{source.relative_to(ROOT)}: expected nothing but comments, and then `groups:`")
        # One level deeper than they were, whichever that was.
        text += textwrap.indent(textwrap.dedent(groups), "    ")
    return text


def config_map(name: str, labels: dict[str, str], *sources: Path) -> str:
    """The files as they are, each under its name."""
    text = heading(*sources) + f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n"
    if labels:
        text += "  labels:\n" + "".join(f'    {key}: "{value}"\n' for key, value in labels.items())
    text += "data:\n"
    for source in sources:
        content = source.read_text()
        if not content.endswith("\n") or content.startswith((" ", "\n")):
            raise BuildError(
                f"{source.relative_to(ROOT)}: expected a text that ends with one newline and begins with none"
            )
        text += f"  {source.name}: |\n" + textwrap.indent(content, "    ")
    if len(text) > LIMIT:
        raise BuildError(f"ConfigMap {name} would have {len(text)} bytes, expected at most {LIMIT}; make it two")
    return text


def heading(*sources: Path) -> str:
    """Where it comes from."""
    return HEAD.format(sources=", ".join(str(source.relative_to(ROOT)) for source in sources))


if __name__ == "__main__":
    sys.exit(main())
