"""The dashboards, rules, alerts and runbook, and the proof that a real Prometheus takes them."""
