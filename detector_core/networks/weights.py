"""Pretrained weights: downloaded from where they are published, or read from a file.

Reading a file never runs code from it. Accepted are safetensors, PyTorch files (with ``weights_only``), and pickled
numpy arrays, the format of the published VGGFace2 ResNet-50, through an unpickler that allows nothing but arrays.
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
from detector_core.errors import BadData, WeightsUnavailable, first_line
from detector_core.networks.frozen import BACKBONES

TIMEOUT_S = 10.0
ALTERNATIVES = "give it with --init FILE, or start from random weights with --init none"
# HfHubHTTPError inherits from the base error of the HTTP library in use, which need not be an OSError.
_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
# Checkpoints often keep the state dict under one of these keys, next to the optimizer's.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def from_hub(repository: str, names: Iterable[str]) -> Path:
    """The path of the first of ``names`` that a Hugging Face repository has, downloaded unless it is in the cache.

    Does not retry: where nothing answers, it gives up after 10 s per request.

    Raises:
        WeightsUnavailable: the file is not in the cache and cannot be downloaded; the message says what to do.
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
            raise WeightsUnavailable(
                f"the pretrained weights cannot be downloaded ({first_line(error)}): "
                f"download {name} from {url} on a machine with internet access, then {ALTERNATIVES}"
            ) from None
    raise WeightsUnavailable(
        f"{repository} on Hugging Face has no file {' or '.join(names)}: start with --init FILE or --init none"
    )


def from_url(url: str, folder: Path) -> Path:
    """The path of a published file, kept under its own name in ``folder`` and downloaded if it is not there yet.

    Raises:
        WeightsUnavailable: the file cannot be downloaded; the message says where to put it and what else can be done.
    """
    path = folder / PurePosixPath(url).name
    if path.exists():
        return path
    try:
        with storage.replacing(path) as partial:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, partial.open("wb") as file:
                shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
            if expected is not None and partial.stat().st_size != int(expected):
                raise OSError(f"the connection broke after {partial.stat().st_size} of {expected} bytes")
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailable(
            f"the pretrained weights cannot be downloaded ({first_line(error)}): "
            f"download {url} on a machine with internet access and put it at {path}; or {ALTERNATIVES}"
        ) from None
    return path


def load_file(model: nn.Module, where: str | Path, heads: Iterable[str]) -> None:
    """Loads the weights of a file or URI into a network.

    Every tensor must match in name and shape, except those of the classification ``heads``: if a head is missing from
    the file or has another number of classes, the network keeps its own. It also keeps frozen backbones, which a model
    folder does not contain.

    Raises:
        WeightsUnavailable: there is no such file, it holds no weights, or they belong to another network (the message
            names the first tensor that differs).
    """
    state, own = read(where), model.state_dict()
    prefixes = tuple(f"{head}." for head in heads)
    if set(state) ^ set(own):
        state = _renamed(state, model)
    kept = {key for key in own if key.startswith(prefixes) and (key not in state or state[key].shape != own[key].shape)}
    # Weights converted from Caffe or saved before PyTorch 0.4.1 lack BatchNorm's count of batches.
    kept |= {key for key in own if key.endswith(".num_batches_tracked") and key not in state}
    kept |= {key for key in own if key.startswith(BACKBONES) and key not in state}
    for key, tensor in own.items():
        if key in kept:
            continue
        if key not in state:
            raise WeightsUnavailable(f"{where} does not fit the network: it has no {key}")
        if state[key].shape != tensor.shape:
            raise WeightsUnavailable(
                f"{where} does not fit the network: the shape of {key} is {list(state[key].shape)} "
                f"instead of {list(tensor.shape)}"
            )
    for key in state:
        if key not in own and not key.startswith(prefixes):
            raise WeightsUnavailable(f"{where} does not fit the network: it has {key}, which the network does not have")
    model.load_state_dict({key: tensor if key in kept else state[key] for key, tensor in own.items()})


def read(where: str | Path) -> dict[str, Tensor]:
    """The tensors in a file or URI by name: ``.safetensors``, ``.pkl`` (numpy arrays), otherwise PyTorch's format.

    Raises:
        WeightsUnavailable: there is no such file, or it does not hold named tensors.
    """
    reader = _READERS.get(PurePosixPath(str(where)).suffix, _read_torch)
    try:
        values = reader(storage.read_bytes(where))
    except FileNotFoundError:
        raise WeightsUnavailable(
            f"there is no file {where}: --init takes 'package', 'hub', 'none' or the path of a weights file"
        ) from None
    except (OSError, BadData, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(f"{where} cannot be read as weights: {first_line(error)}") from None
    except safetensors.SafetensorError as error:
        raise WeightsUnavailable(f"{where} is not a complete safetensors file: {first_line(error)}") from None
    for wrapper in _WRAPPERS:
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not values or not all(isinstance(tensor, Tensor) for tensor in values.values()):
        raise WeightsUnavailable(f"{where} holds no state dict: it must be a dictionary of tensors by name")
    # DistributedDataParallel puts this prefix before every name.
    return {str(key).removeprefix("module."): tensor for key, tensor in values.items()}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dicts of numpy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, but only numpy arrays are allowed")
        return super().find_class(module, name)


def _read_arrays(data: bytes) -> Any:
    # latin1 preserves the bytes of arrays that were pickled by Python 2.
    values = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    if not isinstance(values, dict):
        return values
    return {key: torch.from_numpy(np.array(value)) for key, value in values.items() if isinstance(value, np.ndarray)}


def _read_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[bytes], Any]] = {".safetensors": safetensors.torch.load, ".pkl": _read_arrays}


def _renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames older names of layers to the network's own.

    Modules of timm that have renamed layers provide ``checkpoint_filter_fn`` for this.
    """
    rename = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if rename is None:
        return state
    try:
        renamed: dict[str, Tensor] = rename(dict(state), model)
    except (KeyError, RuntimeError):  # weights of another network: the caller's comparison of names says so
        return state
    return renamed
