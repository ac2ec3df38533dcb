"""Callbacks that put ``prunec.train`` into the loops of frameworks, one a file.  prunec itself needs none of these.

A loop with ``accelerate`` needs no callback: ``accelerator.register_for_checkpointing(sparse)``, and ``sparse.step()``.
"""
