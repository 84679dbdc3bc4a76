"""Connections, servers, TLS and transports."""
