"""What several commands of the command line share: their options, how they load a source, how they print JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .console import Stages

SOURCES = """\
SOURCE is one of
  net.onnx                    an ONNX file
  net.pt2                     a program saved with torch.export.save
  torchvision:resnet50        a model of torchvision, random weights
  timm:convnext_tiny          a model of timm, random weights
  package.module:factory      a function that returns a module, or (module, example_inputs)
  path/file.py:factory        the same, from a file
"""

Commands = Any  # argparse keeps the type of what add_subparsers returns to itself


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
) -> Any:
    """A command that ``run`` does, with the options that all have."""
    command = commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--debug", action="store_true", help="show tracebacks and warnings")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py",
        help="load ops, criteria and passes of your own: a file, or package.module; repeatable",
    )  # fmt: skip
    command.set_defaults(run=run, command_parser=command)
    return command


def add_source(command: Any) -> None:
    """The arguments that :func:`load` goes by."""
    command.add_argument("source", metavar="SOURCE", help="the model; see below")
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME:2x3x224x224",
        help="shape of an input, NAME optional, repeatable; :int or :bool may follow",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, metavar="N", help="for random weights and inputs (default 0)")


def load(args: argparse.Namespace, stages: Stages) -> tuple[Any, Any]:
    """The model that was named, and its example inputs."""
    from .sources import InputShape, load_source

    shapes = [InputShape.parse(text) for text in args.input]
    stages("load", args.source)
    return load_source(args.source, shapes, args.seed)


@contextlib.contextmanager
def work(args: argparse.Namespace) -> Iterator[None]:
    """Libraries may print and warn: that goes to stderr, and only with ``--debug`` are warnings shown."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not args.debug:
            warnings.simplefilter("ignore")
        yield


def as_json(found: Any) -> str:
    """What machines read on stdout, and in files."""
    return json.dumps(found, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(item: Any) -> Any:
    """Numpy's numbers and arrays, and paths, as JSON has them."""
    if hasattr(item, "tolist"):
        return item.tolist()
    if isinstance(item, Path):
        return str(item)
    raise TypeError(f"{type(item).__name__} has no JSON form")


def finite(text: str) -> float:
    """A number that is one, as an option takes it."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is no number to go by")
    return number
