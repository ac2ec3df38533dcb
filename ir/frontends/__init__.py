"""Frontends: they map the names of a source dialect to ops, and know nothing of what the ops mean."""
