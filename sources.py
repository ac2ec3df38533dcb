"""Where a model comes from: the text that stands for SOURCE on the command line, and what it loads.

==================================  =======================================================================
text                                loads
==================================  =======================================================================
``net.onnx``                        the model, parsed; its tensors beside it are not read
``net.pt2``                         an exported program (``torch.export.save``)
``torchvision:resnet50``            a model of torchvision with random weights
``timm:convnext_tiny``              a model of timm with random weights
``package.module:factory``          what ``factory()`` returns: a module, or ``(module, example_inputs)``
``path/file.py:factory``            the same, from a file
==================================  =======================================================================

Pickles are never loaded: reading one runs whatever code it holds.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .ir.errors import EnvironmentProblem, ModelError, PrunecError, UsageError, first_line
from .ir.modules import load_module
from .ir.words import did_you_mean
from .models import OnnxFile

if TYPE_CHECKING:
    import torch

_INPUT = re.compile(r"(?:(?P<name>.+):)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>float|int|bool)\d*)?")
_CHECKPOINTS = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".th", ".tar", ".joblib", ".safetensors"}
_INSTEAD = (
    "export the model to ONNX or to .pt2 (torch.export.save(torch.export.export(model, inputs), path)), "
    "or give package.module:factory, a function that builds the model and loads its weights"
)
_TORCHVISION_SIZES = {"inception_v3": (3, 299, 299)}
_VIDEO_SIZES = {"mvit": (3, 16, 224, 224), "swin3d": (3, 16, 224, 224)}
_TRACEBACK = "--debug shows where"
BATCH = 2
"""Batch of example inputs: an export with batch 1 would fix it."""


@dataclass(frozen=True)
class InputShape:
    """One ``--input``: a shape, and the name and kind (``float``, ``int``, ``bool``) where they were given."""

    shape: tuple[int, ...]
    name: str | None = None
    kind: str | None = None

    @classmethod
    def parse(cls, text: str) -> InputShape:
        """Read ``NAME:2x3x224x224``, where the name may be absent and ``:int`` or ``:bool`` may follow."""
        match = _INPUT.fullmatch(text)
        if match is None or "0" in match["shape"].split("x"):
            raise UsageError(f"--input {text!r} is no shape", hint="write NAME:2x3x224x224 or 2x3x224x224")
        return cls(tuple(map(int, match["shape"].split("x"))), match["name"], match["dtype"])


def load_source(text: str, inputs: Sequence[InputShape] = (), seed: int = 0) -> tuple[Any, Any]:
    """The model behind ``text`` and its example inputs (None where there is nothing to make them from).

    ``inputs`` are shapes to make example inputs from; ``seed`` is for random weights and inputs.

    Raises
    ------
    ModelError
        The file or name does not exist, is a pickle, or its factory fails.
    EnvironmentProblem
        torchvision or timm is not installed.
    UsageError
        ``inputs`` do not fit the model.
    """
    if text.endswith(".onnx"):
        check_file(text)
        file = _parsed(Path(text))
        return file, _onnx_feeds(file, inputs, seed) if inputs else None
    if text.endswith(".pt2") and inputs:
        raise UsageError(f"--input does not go with {text}", hint="an exported program has inputs of its own")
    model, example_inputs = _load_torch(text, seed)
    return model, _torch_inputs(inputs, seed) if inputs else example_inputs


def source_file(text: str) -> str | None:
    """The file behind ``text``; None where a module or a zoo is."""
    home = text.rpartition(":")[0]
    return home if home.endswith(".py") else text if _is_file_name(text) else None


def _parsed(path: Path) -> OnnxFile:
    from .ir.frontends.onnx_file import parse

    return OnnxFile(path, parse(path))


def data_files(model: Any) -> dict[str, str]:
    """The files that hold the tensors of an ONNX file beside it, by what messages call them."""
    if not isinstance(model, OnnxFile):
        return {}
    from .ir.frontends.onnx_file import external_tensors

    entries = (e for t in external_tensors(model.proto) for e in t.external_data if e.key == "location")
    return {
        f"the tensors of {model.path} ({place})": str(model.path.parent / place)
        for place in sorted({e.value for e in entries})
    }


def data_files_of(text: str) -> dict[str, str]:
    """The same for the file ``text``; none where it cannot be read, which whoever reads it says."""
    try:
        return data_files(_parsed(Path(text))) if Path(text).suffix == ".onnx" else {}
    except ModelError:
        return {}


def _load_torch(text: str, seed: int) -> tuple[Any, Any]:
    if text.endswith(".pt2"):
        check_file(text)
        from .pt2 import load_program

        return load_program(text), None
    library, _, name = text.partition(":")
    if library in ZOOS and name:
        return ZOOS[library](name, seed)
    if _is_file_name(text):
        check_file(text)
        raise ModelError(
            f"{text} is no kind of model file that prunec reads", hint=f"known are .onnx and .pt2; {_INSTEAD}"
        )
    return _from_factory(text, seed)


def _is_file_name(text: str) -> bool:
    """True where the text can only mean a file: it exists, has a checkpoint's suffix, or names no factory."""
    return Path(text).exists() or Path(text).suffix.lower() in _CHECKPOINTS or ":" not in text


def check_file(text: str) -> None:
    """Raise :class:`ModelError` for a file that is missing, a folder, or a pickle."""
    path = Path(text)
    if path.is_dir():
        raise ModelError(f"{text} is a folder, no model file", hint="give an .onnx or .pt2 file in it", path=text)
    if not path.exists():
        raise ModelError(f"there is no file {text}", hint=_near_files(path), path=text)
    try:
        pickled = _is_pickle(path)
    except OSError as error:
        raise ModelError(
            f"cannot read {text}: {error.strerror or error}", hint="check the permissions of the file", path=text
        ) from error
    if pickled or path.suffix.lower() in _CHECKPOINTS:
        kind = "holds weights without a graph" if path.suffix == ".safetensors" else "is a pickle"
        reason = (
            "" if path.suffix == ".safetensors" else "; pickles are never loaded, because reading one runs its code"
        )
        raise ModelError(f"{text} {kind}{reason}", hint=_INSTEAD, path=text)


def _is_pickle(path: Path) -> bool:
    """True for a bare pickle and for torch's zip around one."""
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if head != b"PK" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(Path(name).name == "data.pkl" for name in archive.namelist())


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    there = (p.name for p in path.parent.iterdir())
    return did_you_mean(path.name, there, "give an .onnx or .pt2 file, or package.module:factory")


def _from_torchvision(name: str, seed: int) -> tuple[Any, Any]:
    models = _import_zoo("torchvision.models", "torchvision")
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    model = _built(f"torchvision:{name}", lambda: models.get_model(name, **options), seed)
    return model.eval(), _torchvision_inputs(name, model, seed)


def _torchvision_inputs(name: str, model: Any, seed: int) -> tuple[Any, ...]:
    """A batch of images; of clips for video models; pairs for RAFT; a list of images for detectors."""
    home = type(model).__module__
    if ".detection." in home:
        return (list(random_tensor((BATCH, 3, 320, 320), "float", seed)),)
    if ".optical_flow." in home:
        return tuple(random_tensor((BATCH, 3, 128, 128), "float", seed + i) for i in range(2))
    size: tuple[int, ...] = _TORCHVISION_SIZES.get(name, (3, 224, 224))
    if ".video." in home:
        size = next((s for start, s in _VIDEO_SIZES.items() if name.startswith(start)), (3, 8, 112, 112))
    return (random_tensor((BATCH, *size), "float", seed),)


def _from_timm(name: str, seed: int) -> tuple[Any, Any]:
    timm = _import_zoo("timm", "timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    model = _built(f"timm:{name}", lambda: timm.create_model(name, pretrained=False), seed)
    size = tuple(model.default_cfg.get("input_size") or (3, 224, 224))
    return model.eval(), (random_tensor((BATCH, *size), "float", seed),)


ZOOS: dict[str, Callable[[str, int], tuple[Any, Any]]] = {"torchvision": _from_torchvision, "timm": _from_timm}


def _import_zoo(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentProblem(
            f"{package} is not installed: {error}", hint=f"pip install {package}   (or pip install 'prunec[zoo]')"
        ) from error
    except Exception as error:  # whatever a package does while it is imported
        raise EnvironmentProblem(
            f"{package} is installed, and cannot be imported: {type(error).__name__}: {first_line(error)}",
            hint="torch and torchvision have to be of one release: install both anew, from the same place",
        ) from error


def _unknown(library: str, name: str, known: Iterable[str]) -> ModelError:
    hint = did_you_mean(name, known, f"{library}'s list_models() gives the names", most=4)
    return ModelError(f"{library} has no model {name!r}", hint=hint, name=name)


def _from_factory(text: str, seed: int) -> tuple[Any, Any]:
    home, _, attribute = text.rpartition(":")
    if not home or not attribute:
        raise ModelError(f"{text!r} is no source", hint="write package.module:factory, torchvision:NAME or a file name")
    module = _load_home(home)
    factory: Any = module
    for part in attribute.split("."):
        if not hasattr(factory, part):
            known = [n for n in dir(factory) if not n.startswith("__")]
            hint = did_you_mean(part, known, "a factory is a function in it that returns the model")
            raise ModelError(f"{home} has no {attribute!r}", hint=hint)
        factory = getattr(factory, part)
    return _unpacked(text, _built(text, factory, seed) if _is_factory(factory) else factory)


def _is_factory(item: Any) -> bool:
    import torch

    return callable(item) and not isinstance(item, torch.nn.Module)


def _unpacked(text: str, found: Any) -> tuple[Any, Any]:
    """What a factory returned, as (model, example inputs)."""
    import onnx
    import torch

    model, inputs = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, (torch.nn.Module, torch.export.ExportedProgram, onnx.ModelProto)):
        raise ModelError(
            f"{text} gives a {type(model).__name__}, no model",
            hint="a factory returns a torch.nn.Module, or (module, example_inputs)",
        )
    return model, (inputs,) if isinstance(inputs, torch.Tensor) else inputs


def _load_home(home: str) -> ModuleType:
    if home.endswith(".py") and not Path(home).is_file():
        raise ModelError(f"there is no file {home}", hint=_near_files(Path(home)), path=home)
    try:
        return load_module(home)
    except (Exception, SystemExit) as error:
        hint = did_you_mean(home, ZOOS, _TRACEBACK)
        raise _failed(f"cannot import {home!r}", error, hint) from error


def _built(text: str, factory: Callable[[], Any], seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return factory()
    except PrunecError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"{text} failed to build the model", error) from error


def _failed(doing: str, error: BaseException, hint: str = _TRACEBACK) -> ModelError:
    return ModelError(f"{doing}: {type(error).__name__}: {error}", hint=hint, cause=error)


def _onnx_feeds(file: OnnxFile, inputs: Sequence[InputShape], seed: int) -> dict[str, Any]:
    """Example inputs for an ONNX file; shapes without a name go to the inputs in order."""
    from .runtime.session import declared_inputs, feeds_for

    declared = {d.name: str(d.dtype) for d in declared_inputs(file.proto)}
    named = {i.name: i for i in inputs if i.name is not None}
    unnamed = [i for i in inputs if i.name is None]
    free = [name for name in declared if name not in named]
    if len(unnamed) > len(free):
        raise UsageError(
            f"{len(inputs)} --input shapes, but {file.path} has fewer inputs", hint=f"inputs: {', '.join(free)}"
        )
    given = named | dict(zip(free, unnamed))
    for name, item in given.items():
        if item.kind is not None and item.kind not in declared.get(name, item.kind):
            raise UsageError(
                f"--input {name}: the model declares {declared[name]}, not {item.kind}",
                hint="an ONNX file says the types of its inputs: give the shape alone",
                input=name,
            )
    return feeds_for(file.proto, seed, sizes={name: item.shape for name, item in given.items()})


def _torch_inputs(inputs: Sequence[InputShape], seed: int) -> tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
    tensors = [random_tensor(item.shape, item.kind or "float", seed + k) for k, item in enumerate(inputs)]
    names = [item.name for item in inputs if item.name is not None]
    if not names:
        return tuple(tensors)
    if len(set(names)) != len(inputs):
        raise UsageError("--input needs a name for each shape, or for none", hint=f"names given: {', '.join(names)}")
    return dict(zip(names, tensors))


def random_tensor(shape: Sequence[int], kind: str, seed: int) -> torch.Tensor:
    """A random CPU tensor: normal floats, integers in [0, 2), or booleans."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if kind == "float":
        return torch.randn(*shape, generator=generator)
    return torch.randint(0, 2, tuple(shape), generator=generator, dtype=torch.bool if kind == "bool" else torch.int64)
