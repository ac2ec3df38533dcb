"""Drawings of a graph and its groups, as a page or a picture that stands alone.  Start at ``drawing``."""
