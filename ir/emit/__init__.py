"""Emitters: a graph written back in the dialect that it came from."""
