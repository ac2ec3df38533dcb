"""Serving a portfolio over HTTP with the Open Inference Protocol; needs the extra ``serve``."""

from .app import make_app
from .limits import Limits
from .server import HttpServer, serve

__all__ = ["HttpServer", "Limits", "make_app", "serve"]
