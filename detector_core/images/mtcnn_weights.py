"""The weights of MTCNN's three networks, read from the installed facenet-pytorch without importing it or PyTorch.

Its files are in the format that ``torch.save`` wrote before version 1.6: pickles of a magic number, a protocol version,
facts about the system, the tensors by name without their values, and the keys of the storages; then the values of each
storage after their number. Only the files of one release are read, by their checksums.
"""

import hashlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detector_core.errors import WeightsUnavailable

PACKAGE: Final = "facenet_pytorch"
CHECKSUMS: Final = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
"""SHA-256 of the file of each network in facenet-pytorch 2.6.0."""

Floats = npt.NDArray[np.float32]
_HEADERS: Final = 3


class _Tensor(NamedTuple):
    """Where the values of a tensor are: the storage's key, the first value, and as in numpy its shape and strides."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load() -> dict[str, Floats]:
    """All weights as NETWORK.LAYER.weight or .bias; convolutions as HWIO, dense layers as IO.

    Raises:
        WeightsUnavailable: facenet-pytorch is not installed, or is another release.
    """
    spec = importlib.util.find_spec(PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    folder = Path((locations or [""])[0], "data")
    weights = {}
    for network, checksum in CHECKSUMS.items():
        file = folder / f"{network}.pt"
        data = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(data).hexdigest() != checksum:
            raise WeightsUnavailable(
                f"{file} is not that of facenet-pytorch 2.6.0, whose face detector is used: install the locked "
                "environment (uv sync --locked)"
            )
        for name, values in _read(data).items():
            laid_out = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
            weights[f"{network}.{name}"] = np.ascontiguousarray(laid_out)
    return weights


def _read(data: bytes) -> dict[str, Floats]:
    """The tensors of a file by name."""
    file = io.BytesIO(data)
    for _ in range(_HEADERS):
        _Unpickler(file).load()
    tensors: dict[str, _Tensor] = _Unpickler(file).load()
    storages = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(4 * count), "<f4")
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[tensor.storage][tensor.offset :], tensor.shape, [4 * stride for stride in tensor.strides]
        )
        for name, tensor in tensors.items()
    }


class _Unpickler(pickle.Unpickler):
    """Knows only what the files contain."""

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> str:
        """The key of a storage."""
        _, _, key, *_ = pid
        return str(key)


def _tensor(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): None,  # whose values are float32
}
