"""Read Paddle's weight files without Paddle, and without trusting them.

A `.pdparams` is a pickle from the internet, and a pickle is a program. The unpickler here knows plain containers and
NumPy arrays, and builds the arrays itself: nothing in the file can name anything else, neither of Python nor of
NumPy.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

# Bookkeeping that `paddle.save` puts beside the weights.
BOOKKEEPING = "StructuredToParameterName@@"
DTYPES = {
    name: np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
}


class WeightsRefused(Exception):
    """A weights file holds what it may not, or not what the network needs; the message names it."""


def read_pdparams(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of weights by their published names.

    Args:
        path: of the `.pdparams`.
    Returns:
        Arrays by name, in the file's order, without Paddle's bookkeeping.
    Raises:
        WeightsRefused: the file is missing, truncated, names anything but arrays and plain containers, or holds
            something else than arrays by name.
    """
    try:
        with path.open("rb") as file:
            found = _ArrayUnpickler(file).load()
    except OSError as error:
        raise WeightsRefused(f"{path}: cannot be read ({error.strerror}).") from error
    except WeightsRefused as refused:
        raise WeightsRefused(f"{path}: {refused}") from refused
    # All that a damaged pickle makes the unpickler raise.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        MemoryError,
        OverflowError,
        RecursionError,
    ) as error:
        raise WeightsRefused(
            f"{path}: found no whole file of weights ({error or type(error).__name__}); fetch it again."
        ) from error
    if not isinstance(found, dict):
        raise WeightsRefused(f"{path}: found a {type(found).__name__}, wanted arrays by name.")
    weights = {}
    for name, value in found.items():
        if name == BOOKKEEPING:
            continue
        # Some versions keep each array beside the name of its tensor.
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if isinstance(value, _Array):
            value = value.finished()
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise WeightsRefused(f"{path}: {name!r} is a {type(value).__name__}, wanted an array by name.")
        weights[name] = value
    return weights


class _DType:
    """What a pickled NumPy dtype says, taken down instead of believed."""

    def __init__(self, code: str = "", *_: object) -> None:
        if code not in DTYPES:
            raise WeightsRefused(f"found an array of {code!r}, wanted plain numbers.")
        self.dtype = DTYPES[code]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise WeightsRefused("found a dtype without byte order.")
        if any(part not in (None, -1, 0) for part in state[2:]):
            raise WeightsRefused("found an array of a structured type, wanted plain numbers.")
        self.dtype = self.dtype.newbyteorder(state[1]) if state[1] != "|" else self.dtype


class _Array:
    """An array in the making: pickle names the type first and gives shape and bytes afterwards."""

    def __init__(self) -> None:
        self._made: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise WeightsRefused("found an array without its shape and bytes.")
        _, shape, dtype, by_column, data = state
        self._made = _array(data, dtype, shape, "F" if by_column else "C")

    def finished(self) -> NDArray[Any]:
        if self._made is None:
            raise WeightsRefused("found an array without its bytes.")
        return self._made


def _array(data: object, dtype: object, shape: object, order: object = "C") -> NDArray[Any]:
    if isinstance(data, pickle.PickleBuffer):
        data = data.raw()
    is_shape = isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)
    is_bytes = isinstance(data, bytes | bytearray | memoryview)
    if not is_shape or not is_bytes or not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise WeightsRefused("found an array whose shape, type or bytes are not such.")
    assert isinstance(shape, tuple)
    assert isinstance(data, bytes | bytearray | memoryview)
    raw = bytes(data)
    wanted = math.prod(shape) * dtype.dtype.itemsize
    if len(raw) != wanted:
        raise WeightsRefused(f"found {len(raw):,} bytes for an array of shape {shape}, wanted {wanted:,}.")
    made = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return made.astype(made.dtype.newbyteorder("="))


# Stands for numpy.ndarray where the pickle names it as an argument; it cannot be called.
_NDARRAY = object()


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _NDARRAY:
        raise WeightsRefused("found an array of a type of its own, wanted numpy.ndarray.")
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Bytes as pickle's protocol 2 writes them: as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise WeightsRefused("found bytes that are written in no way that pickle writes them.")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """No bytes as pickle's protocol 2 writes them."""
    return b""


_KNOWN = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): dict,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise WeightsRefused(
                f"it wants {module}.{name}, which is no part of a weights file; do not open it with anything else."
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise WeightsRefused(f"it refers to something outside of it ({pid!r}).")


def describe_unfit(weights: Mapping[str, NDArray[Any]]) -> list[str]:
    """Every name whose array is not made of finite floating point numbers."""
    faults = []
    for name, array in weights.items():
        if array.dtype.kind != "f":
            faults.append(f"{name} is made of {array.dtype}, wanted floating point numbers")
        elif not np.isfinite(array).all():
            faults.append(f"{name} holds infinity or not-a-number")
    return faults
