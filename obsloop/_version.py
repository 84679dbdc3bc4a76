"""The version, read by the build and by `obsloop --version`."""

__version__ = "0.1.0"
