"""Which model an evaluation uses, and where Milvus keeps its data."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from django.conf import settings

from backend.common.problems import Problem
from backend.engines import embedded
from backend.engines.milvus import Milvus
from backend.gallery.loading import get_embedder
from backend.gallery.models import Generation, InstalledModel, ModelTask
from backend.gallery.selectors import find_model, get_active_generation
from recognition.embedder import ProductEmbedder, open_embedder
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder, and the active generation where it is that one's."""

    embedder: ProductEmbedder
    generation: Generation | None


def get_chosen_embedder(name: str | None) -> ChosenEmbedder:
    """The embedder to evaluate.

    Args:
        name: None for the active generation's; an installed model's name or `name:version`; or a model folder.
    Raises:
        Problem: 404, there is no such model.
        ModelRefused: it does not run as its card says.
    """
    active = get_active_generation()
    if name is not None and Path(name).is_dir():
        sessions = SessionSettings(threads=settings.THREADS_PER_WORKER)
        return ChosenEmbedder(open_embedder(load_model_folder(Path(name)), sessions), None)
    model = active.embedder if active is not None else None
    if name is not None:
        model = find_model(name, task=ModelTask.EMBEDDER)
    if model is None:
        known = ", ".join(
            f"{one.name}:{one.version}" for one in InstalledModel.objects.filter(task=ModelTask.EMBEDDER)
        )
        wanted = "no generation is active" if name is None else f"there is no embedder {name!r}"
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "no-embedder",
            f"{wanted}; name one with --model: a model folder, or one that is installed ({known or 'none is'})",
        )
    return ChosenEmbedder(get_embedder(model), active if active and active.embedder_id == model.pk else None)


def get_milvus_index_bytes() -> int | None:
    """Disk that the embedded Milvus uses for index files; None where Milvus is another server.

    Its other folders say little: logs are laid out 76 MB at a time, and rows lie there twice while they are compacted.
    """
    if all(engine.url != settings.MILVUS_URI for engine in embedded.status(settings.DATA_DIR)):
        return None
    folder = settings.DATA_DIR / Milvus.name / "data" / "index_files"
    return sum(_disk_use(path) for path in folder.rglob("*"))


def _disk_use(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0  # Milvus removes what it no longer needs while we look
