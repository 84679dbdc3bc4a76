"""Servers, started by the line that their users write, with `obsloop run` before it."""
