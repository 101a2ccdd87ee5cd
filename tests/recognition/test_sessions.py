"""Sessions run where and how the card says, or say that they do not."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from recognition import sessions
from recognition.errors import ModelRefused
from recognition.sessions import SessionSettings, open_session
from tests.recognition.toy_models import embedder_card, embedder_model, write_folder

FAST = SessionSettings(batch_sizes=(1, 4))


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, 24, 32)).astype(np.float32)


def reference(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same graph in plain ONNX Runtime, one picture at a time."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def half_foreign_model() -> onnx.ModelProto:
    """A graph whose last node ONNX Runtime knows and OpenVINO does not."""
    model = embedder_model()
    model.graph.node[-1].output[0] = "linear_out"
    model.graph.node.append(helper.make_node("QuickGelu", ["linear_out"], ["gelu"], domain="com.microsoft"))
    model.graph.node.append(
        helper.make_node("CDist", ["gelu", "gelu"], ["embedding"], domain="com.microsoft")
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


class TestProvider:
    @pytest.mark.parametrize("provider", ["cpu", "openvino"])
    def test_a_model_runs_where_its_card_says(self, tmp_path: Path, provider: str) -> None:
        model = embedder_model()
        folder = write_folder(tmp_path, model, embedder_card(provider=provider))
        session = open_session(folder, FAST)
        assert session.provider == provider
        found = session.run({"image": pictures(3)})["embedding"]
        assert found == pytest.approx(reference(model, pictures(3)), abs=1e-4)

    def test_bf16_is_really_computed_and_fp32_really_is_not(self, tmp_path: Path) -> None:
        if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
            pytest.skip("this machine does not compute bf16")
        model = embedder_model()
        wanted = reference(model, pictures(4))
        errors = {}
        for precision in ("fp32", "bf16"):
            card = embedder_card(provider="openvino", precision=precision)
            session = open_session(write_folder(tmp_path / precision, model, card), FAST)
            errors[precision] = abs(session.run({"image": pictures(4)})["embedding"] - wanted).max()
        assert errors["fp32"] < 1e-5 < 1e-4 < errors["bf16"] < 0.1


@pytest.fixture(params=["a path as load_config", "a precision that CPUs have not", "an unknown option"])
def openvino_gets_wrong_options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that ONNX Runtime answers by leaving OpenVINO out; two of the three without an error."""
    wrong = {
        "a path as load_config": {"load_config": "/etc/openvino.json"},
        "a precision that CPUs have not": {"precision": "FP16"},
        "an unknown option": {"colour": "red"},
    }[request.param]
    right = sessions._provider_options
    monkeypatch.setattr(
        sessions,
        "_provider_options",
        lambda card, provider, how: right(card, provider, how) | (wrong if provider == "openvino" else {}),
    )


@pytest.mark.usefixtures("openvino_gets_wrong_options")
class TestFallback:
    def test_fp32_runs_on_the_plain_provider_and_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = write_folder(tmp_path, embedder_model(), embedder_card(provider="openvino"))
        with caplog.at_level(logging.WARNING):
            session = open_session(folder, FAST)
        assert session.provider == "cpu"
        assert "toy runs on the plain CPU provider" in caplog.text

    def test_fp32_is_refused_where_no_fallback_is_allowed(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, embedder_model(), embedder_card(provider="openvino"))
        with pytest.raises(ModelRefused, match="toy 1 was made for openvino at fp32"):
            open_session(folder, SessionSettings(allow_cpu_fallback=False))

    @pytest.mark.parametrize("precision", ["bf16", "int8"])
    def test_other_precisions_are_never_replaced(self, tmp_path: Path, precision: str) -> None:
        card = embedder_card(provider="openvino", precision=precision)
        with pytest.raises(ModelRefused, match=f"made for openvino at {precision}"):
            open_session(write_folder(tmp_path, embedder_model(), card), FAST)


def test_a_graph_that_openvino_knows_in_part_does_not_run_in_part_elsewhere(tmp_path: Path) -> None:
    on_cpu = write_folder(tmp_path / "cpu", half_foreign_model(), embedder_card())
    assert open_session(on_cpu, FAST).provider == "cpu"
    card = embedder_card(provider="openvino", precision="bf16")
    with pytest.raises(ModelRefused, match="made for openvino at bf16"):
        open_session(write_folder(tmp_path / "openvino", half_foreign_model(), card), FAST)


class TestBatches:
    @pytest.mark.parametrize("provider", ["cpu", "openvino"])
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
    def test_any_number_of_pictures_gives_what_each_alone_gives(
        self, tmp_path: Path, provider: str, count: int
    ) -> None:
        model = embedder_model()
        session = open_session(write_folder(tmp_path, model, embedder_card(provider=provider)), FAST)
        found = session.run({"image": pictures(count)})
        assert list(found) == ["embedding"]
        assert found["embedding"].shape == (count, 16)
        assert found["embedding"] == pytest.approx(reference(model, pictures(count)), abs=1e-4)

    def test_only_the_chosen_sizes_ever_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = []
        run = onnxruntime.InferenceSession.run

        def noting(self: onnxruntime.InferenceSession, names: list[str], inputs: dict[str, Any]) -> Any:
            sizes.append(len(inputs["image"]))
            return run(self, names, inputs)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run", noting)
        folder = write_folder(tmp_path, embedder_model(), embedder_card())
        session = open_session(folder, SessionSettings(batch_sizes=(8, 2, 1)))
        assert sizes == [1, 2, 8], "each is warmed when the session is opened"
        sizes.clear()
        for count in (1, 2, 3, 8, 19):
            session.run({"image": pictures(count)})
        assert sizes == [1, 2, *(2, 1), 8, *(8, 8, 2, 1)]

    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_model_of_fixed_batch_is_run_in_that_batch(self, tmp_path: Path, batch: int) -> None:
        model = embedder_model(batch=batch)
        session = open_session(write_folder(tmp_path, model, embedder_card()), FAST)
        found = session.run({"image": pictures(3)})["embedding"]
        assert found == pytest.approx(reference(embedder_model(), pictures(3)), abs=1e-4)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_threads_may_run_at_once(tmp_path: Path, provider: str) -> None:
    model = embedder_model()
    session = open_session(write_folder(tmp_path, model, embedder_card(provider=provider)), FAST)
    wanted = {seed: reference(model, pictures(3, seed)) for seed in range(8)}

    def ask(number: int) -> bool:
        found = session.run({"image": pictures(3, number % 8)})["embedding"]
        return bool(np.allclose(found, wanted[number % 8], atol=1e-4))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"outputs": {"embedding": "features"}, "hash_bits": None, "hash_method": None},
            "no output .'features'",
        ),
        ({"input": embedder_card()["input"] | {"name": "picture"}}, "says 'picture' alone"),
        ({"input": embedder_card()["input"] | {"width": 64}}, r"says \(N, \(3, 24, 64\)\)"),
        (
            {
                "input": {
                    key: value
                    for key, value in embedder_card()["input"].items()
                    if key not in ("scale", "mean", "std")
                }
                | {"dtype": "uint8", "normalisation_in_graph": True}
            },
            "says uint8",
        ),
    ],
)
def test_a_graph_that_is_not_the_cards_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    card = {key: value for key, value in (embedder_card() | changes).items() if value is not None} | {
        "seed": None
    }
    with pytest.raises(ModelRefused, match=named):
        open_session(write_folder(tmp_path, embedder_model(), card), FAST)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, embedder_model(), embedder_card())
    folder.model_path.write_bytes(b"no model")
    with pytest.raises(ModelRefused, match=r"cpu cannot run .*model\.onnx"):
        open_session(folder, FAST)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch_sizes": ()}, {"batch_sizes": (0, 1)}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        SessionSettings(**wrong)
