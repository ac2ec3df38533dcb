"""The graph IR: values with axes of atoms, op declarations, frontends and emitters.  Start at ``graph``."""
