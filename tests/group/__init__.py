"""Tests of obsloop.group: all processes of one command or address answer as one."""
