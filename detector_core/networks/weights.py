"""Weights that exist before a run: fetched from where they are published, or read from a file.

Nothing a file holds is ever executed: safetensors, PyTorch's ``weights_only`` reader, and for the pickled numpy arrays
in which the VGGFace2 ResNet-50 is published an unpickler that knows arrays and nothing else.
"""

import http.client
import importlib
import io
import pickle
import shutil
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
import numpy as np
import safetensors
import safetensors.torch
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from torch import Tensor, nn

from detector_core import storage
from detector_core.errors import BadData, NoWeights, first_line

TIMEOUT_S = 10.0
OTHER_WAYS = "then give it with --init FILE, or start from random weights with --init none"
# HfHubHTTPError derives from the HTTP library's own root, which is no OSError; whichever library that is:
_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
# A checkpoint often holds its state dict under one of these, beside an optimizer.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def from_hub(repository: str, names: Iterable[str]) -> Path:
    """The first of the named files that a Hugging Face repository has, from the local cache where it is there.

    Asks the network once, without retries: at most a few times 10 s where nothing answers.

    Raises:
        NoWeights: it is not cached and cannot be fetched; names the page and what to do.
    """
    names = list(names)
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        url = huggingface_hub.hf_hub_url(repository, name)
        try:
            huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_S)
            return Path(huggingface_hub.hf_hub_download(repository, name, etag_timeout=TIMEOUT_S))
        except EntryNotFoundError:
            continue
        except _NETWORK_ERRORS as error:
            raise NoWeights(
                f"the pretrained weights cannot be fetched ({first_line(error)}): "
                f"fetch {name} from {url} on a machine with a network, {OTHER_WAYS}"
            ) from None
    raise NoWeights(
        f"{repository} on Hugging Face has none of {', '.join(names)}: start with --init FILE or --init none"
    )


def from_url(url: str, folder: Path) -> Path:
    """A published file under its own name in ``folder``, downloaded if it is not there yet.

    Raises:
        NoWeights: it cannot be fetched; names the file, where it would be looked for, and what else to do.
    """
    path = folder / PurePosixPath(url).name
    if path.exists():
        return path
    try:
        with storage.replacing(path) as beside:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, beside.open("wb") as file:
                shutil.copyfileobj(answer, file)
            expected = answer.headers.get("Content-Length")
            if expected is not None and beside.stat().st_size != int(expected):
                raise OSError(f"the connection broke after {beside.stat().st_size} of {expected} bytes")
    except (OSError, http.client.HTTPException) as error:
        raise NoWeights(
            f"the pretrained weights cannot be fetched ({first_line(error)}): "
            f"fetch {url} on a machine with a network and put it at {path}; or {OTHER_WAYS.removeprefix('then ')}"
        ) from None
    return path


def load_file(model: nn.Module, where: str | Path, heads: Iterable[str]) -> None:
    """Loads the weights of a file or URI into a network.

    Every tensor must fit by name and shape, except those of the classifying ``heads``: where the file's head is
    missing or has another number of classes, the network keeps its own.

    Raises:
        NoWeights: no such file, not a file of weights, or made for another network (names the first key that differs).
    """
    state, own = read(where), model.state_dict()
    prefixes = tuple(f"{head}." for head in heads)
    if set(state) ^ set(own):
        state = _renamed(state, model)
    kept = {key for key in own if key.startswith(prefixes) and (key not in state or state[key].shape != own[key].shape)}
    # Weights converted from Caffe, or saved before PyTorch 0.4.1, do not count BatchNorm's batches.
    kept |= {key for key in own if key.endswith(".num_batches_tracked") and key not in state}
    for key, tensor in own.items():
        if key in kept:
            continue
        if key not in state:
            raise NoWeights(f"{where} does not fit the network: it holds no {key}")
        if state[key].shape != tensor.shape:
            raise NoWeights(
                f"{where} does not fit the network: {key} is {list(state[key].shape)}, not {list(tensor.shape)}"
            )
    for key in state:
        if key not in own and not key.startswith(prefixes):
            raise NoWeights(f"{where} does not fit the network: it holds {key}, which the network has not")
    model.load_state_dict({key: tensor if key in kept else state[key] for key, tensor in own.items()})


def read(where: str | Path) -> dict[str, Tensor]:
    """The tensors of a file or URI by name: ``.safetensors``, ``.pkl`` of numpy arrays, else PyTorch's own format.

    Raises:
        NoWeights: no such file, or it holds no named tensors.
    """
    reader = _READERS.get(PurePosixPath(str(where)).suffix, _read_torch)
    try:
        values = reader(storage.read_bytes(where))
    except FileNotFoundError:
        raise NoWeights(f"there is no file {where}: --init takes 'hub', 'none' or the path of a weights file") from None
    except (OSError, BadData, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise NoWeights(f"{where} cannot be read as weights: {first_line(error)}") from None
    except safetensors.SafetensorError as error:
        raise NoWeights(f"{where} is not a whole safetensors file: {first_line(error)}") from None
    for wrapper in _WRAPPERS:
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not values or not all(isinstance(tensor, Tensor) for tensor in values.values()):
        raise NoWeights(f"{where} holds no state dict: a table of named tensors is needed")
    # DistributedDataParallel prefixes every name.
    return {str(key).removeprefix("module."): tensor for key, tensor in values.items()}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dicts of numpy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only numpy arrays are read")
        return super().find_class(module, name)


def _read_arrays(data: bytes) -> Any:
    # latin1 is how the bytes of arrays pickled by Python 2 come back unchanged.
    values = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    if not isinstance(values, dict):
        return values
    return {key: torch.from_numpy(np.array(value)) for key, value in values.items() if isinstance(value, np.ndarray)}


def _read_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[bytes], Any]] = {".safetensors": safetensors.torch.load, ".pkl": _read_arrays}


def _renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Older names as the network's own: each module of timm that changed names has a ``checkpoint_filter_fn``."""
    rename = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if rename is None:
        return state
    try:
        renamed: dict[str, Tensor] = rename(dict(state), model)
    except (KeyError, RuntimeError):  # made for another network: the comparison of names says how
        return state
    return renamed
