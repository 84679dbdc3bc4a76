"""Where the stack's alerts go: a webhook that prints one line for each, and notifies no person.

    python alerts.py [--host 0.0.0.0] [--port 9094]

For the compose stack, so that `docker compose -p obsloop logs -f alerts` shows what would have been sent. In earnest
Alertmanager's receiver is a pager's or a chat's, and this file is not needed.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Bytes of a notification that are read; Alertmanager's are some kilobytes.
LIMIT = 1 << 20


class Webhook(BaseHTTPRequestHandler):
    """Alertmanager's webhook, version 4: a group of alerts as JSON."""

    timeout = 10

    def do_POST(self) -> None:
        """Print them; 400 for what is not Alertmanager's."""
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 < length <= LIMIT:
                raise ValueError(f"a body of {length} bytes; expected 1 to {LIMIT}")
            lines = [line(alert) for alert in json.loads(self.rfile.read(length))["alerts"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.send_error(400, f"not a notification of Alertmanager's: {error!r}"[:200])
            return
        for text in lines:
            print(text, flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request: the alerts are the log."""


def line(alert: dict[str, dict[str, str]]) -> str:
    """One alert: its state, its name, whom it is about, and what it says."""
    labels = alert["labels"]
    about = " ".join(f"{name}={labels[name]}" for name in ("severity", "instance", "worker", "job") if name in labels)
    said = alert.get("annotations", {}).get("summary", "")
    return f"{alert['status']}: {labels['alertname']} {about} {said}".rstrip()


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9094)
    options = parser.parse_args()
    with ThreadingHTTPServer((options.host, options.port), Webhook) as server:
        print(f"alerts: at http://{options.host}:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
