"""A weights file is read as data, whoever wrote it: arrays come out, and nothing in it is ever run."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.seeded_weights import seeded_array
from training.pdparams import BOOKKEEPING, WeightsRefused, read_pdparams

WRITTEN_BY_PADDLE = Path(__file__).parent / "data" / "pplcnet_x0_25.pdparams"


def arrays() -> dict[str, NDArray[np.generic]]:
    values = seeded_array("some.weight", (3, 5))
    return {
        "c order": values,
        "fortran order": np.asfortranarray(values),
        "big endian": values.astype(">f4"),
        "half": values.astype(np.float16),
        "whole": np.arange(4),
        "none": np.zeros((0, 2), np.float32),
        "scalar": np.array(2.5),
    }


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_back_in_every_protocol_and_byte_order(tmp_path: Path, protocol: int) -> None:
    wanted = arrays()
    found = read_pdparams(write(tmp_path / "file", {**wanted, BOOKKEEPING: {"a": "b"}}, protocol))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_file_that_paddle_wrote_is_read() -> None:
    found = read_pdparams(WRITTEN_BY_PADDLE)
    assert len(found) == 146
    assert found["fc.weight"].shape == (1280, 10)
    np.testing.assert_array_equal(found["conv1.bn._variance"], seeded_array("conv1.bn._variance", (8,)))


def test_arrays_beside_their_tensors_names_and_in_an_ordered_dict_are_read(tmp_path: Path) -> None:
    values = seeded_array("some.weight", (3, 5))
    found = read_pdparams(write(tmp_path / "file", OrderedDict(a=("linear_0.w_0", values))))
    np.testing.assert_array_equal(found["a"], values)


class Touches:
    """Runs code where it is unpickled in good faith."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


class Calls:
    """Calls anything that a file may name."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


def test_code_is_refused_by_its_name_and_never_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    with pytest.raises(WeightsRefused, match=r"file: it wants (builtins\.getattr|pathlib)"):
        read_pdparams(write(tmp_path / "file", {"fc.weight": Touches(victim)}))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Calls(os.system, "true"), r"(posix|os)\.system"),
        (Calls(eval, "1"), r"builtins\.eval"),
        (Calls(np.load, "x"), r"numpy\.load"),
        (Calls(np.frombuffer, b"1234"), r"frombuffer"),
        (np.float64(1.5), r"scalar"),
        ({"a": np.array([{}, []], object)}, "plain numbers"),
        ({"a": np.zeros(2, [("x", "f4")])}, "plain numbers"),
        ({"a": np.array(["text"])}, "plain numbers"),
        ({"a": np.matrix([[1.0]])}, r"matrix"),
        ({"a": 1.5}, "'a' is a float, wanted an array"),
        ({1: np.zeros(2)}, "1 is a ndarray, wanted an array by name"),
        ([np.zeros(2)], "found a list"),
        (np.zeros(2), "found a _Array|found a ndarray"),
    ],
)
def test_what_is_not_arrays_by_name_is_refused(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(WeightsRefused, match=named):
        read_pdparams(write(tmp_path / "file", content))


def test_an_array_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    honest = pickle.dumps({"a": np.zeros(7, np.float32)}, protocol=4)
    lying = honest.replace(b"K\x07\x85", b"K\x08\x85")  # the tuple (7,) becomes (8,)
    assert lying != honest
    (tmp_path / "file").write_bytes(lying)
    with pytest.raises(WeightsRefused, match=r"28 bytes for an array of shape \(8,\), wanted 32"):
        read_pdparams(tmp_path / "file")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = WRITTEN_BY_PADDLE.read_bytes()
    (tmp_path / "file").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsRefused, match="fetch it again"):
        read_pdparams(tmp_path / "file")


def test_damaged_files_are_refused_whatever_is_damaged(tmp_path: Path) -> None:
    whole = pickle.dumps(arrays(), protocol=2)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            damaged[position] = random.integers(0, 256)
        (tmp_path / "file").write_bytes(damaged)
        try:
            found = read_pdparams(tmp_path / "file")
        except WeightsRefused:
            continue
        assert all(isinstance(value, np.ndarray) for value in found.values())


def test_no_file_and_no_pickle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="cannot be read"):
        read_pdparams(tmp_path / "absent.pdparams")
    (tmp_path / "text").write_text("<html>Not found</html>")
    with pytest.raises(WeightsRefused, match="fetch it again"):
        read_pdparams(tmp_path / "text")
