"""Measuring what the gallery finds, how fast, and how large it is (docs/evaluation.md has the protocol).

Each query's embedding against all gallery embeddings, the query itself excluded when it is in the gallery: by exact
search in NumPy, and by Milvus in collections made for the purpose, which are dropped at the end whatever happens.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import numpy as np
from django.conf import settings

from backend.common.problems import Problem
from backend.evaluation.embedding import Crop, Cropping, Over, embed_pictures
from backend.evaluation.models import EvaluationRun
from backend.evaluation.pictures import Subject
from backend.evaluation.report import (
    EXACT,
    EvaluatedModel,
    EvaluationReport,
    Line,
    LineIndex,
    describe_use,
)
from backend.evaluation.scoring import map_over_all, score
from backend.evaluation.searching import (
    SEARCH_SECONDS,
    BuiltGallery,
    Measurement,
    built_gallery,
    depth_settings,
    exactly,
    search_in_turns,
    through_milvus,
)
from backend.evaluation.selectors import get_chosen_embedder
from backend.evaluation.task import Task, nothing_to_measure, set_task
from backend.gallery.loading import get_detector
from backend.gallery.models import Generation
from backend.gallery.selectors import get_active_detector
from recognition.embedder import ProductEmbedder
from recognition.gallery import IndexReport, IndexSettings, Strategy, ping
from recognition.index import SEARCHED_EXACTLY, IndexType, computed_index_bytes

FLOAT_INDEXES: tuple[IndexType, ...] = ("FLAT", "HNSW", "IVF_FLAT")
INDEXES: tuple[LineIndex, ...] = (*FLOAT_INDEXES, "BIN_FLAT")
STRATEGIES: tuple[Strategy, ...] = ("float", "hash", "hash_rerank")


@dataclass(frozen=True)
class Plan:
    """How to evaluate.

    Attributes:
        generation: the active one, where the embedder is that one's.
        detector: name and version of the detector that crops, if one does.
        indexes: out of INDEXES; hash strategies search BIN_FLAT, float the others.
        strategies: out of STRATEGIES.
    """

    embedder: ProductEmbedder
    generation: Generation | None
    cropping: Cropping
    detector: str | None
    indexes: Sequence[LineIndex]
    strategies: Sequence[Strategy]

    def lines(self) -> list[tuple[LineIndex, Strategy]]:
        """What is to be measured.

        Raises:
            Problem: 400, no index goes with a strategy.
        """
        found = [
            (index, strategy)
            for index in INDEXES
            for strategy in STRATEGIES
            if index in self.indexes and strategy in self.strategies
            if (index == "BIN_FLAT") == (strategy != "float")
        ]
        if not found:
            raise nothing_to_measure("the hash strategies search BIN_FLAT, and float the other indexes")
        return found


def make_plan(
    model: str | None, crop: Crop, indexes: Sequence[LineIndex], strategies: Sequence[Strategy]
) -> Plan:
    """A plan from what an operator names.

    Args:
        model: as `get_chosen_embedder` takes it.
    Raises:
        Problem: 404, there is no such embedder; 409, no detector is active to crop with.
        ModelRefused: a model does not run as its card says.
    """
    chosen = get_chosen_embedder(model)
    detector = get_active_detector() if crop == "detect" else None
    if crop == "detect" and detector is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-detector",
            "--crop detect needs a detector; install one with `install_model DIR --activate`",
        )
    card = chosen.embedder.card
    cropping = Cropping(
        mode=crop,
        detector=None if detector is None else get_detector(detector),
        margin=card.crop_margin,
        minimum_side=card.minimum_side_pixels,
    )
    return Plan(
        embedder=chosen.embedder,
        generation=chosen.generation,
        cropping=cropping,
        detector=None if detector is None else str(detector),
        indexes=indexes,
        strategies=strategies,
    )


def evaluate(subject: Subject, plan: Plan, over: Over[Any]) -> EvaluationReport:
    """Embed, index, search and score.

    Args:
        over: walks over the steps of a stage, and may show how far it is.
    Raises:
        Problem: 400, nothing can be measured.
        GalleryUnavailable: Milvus does not answer.
    """
    wanted, refused = plan.lines(), subject.refused
    started = time.perf_counter()
    gallery = embed_pictures(
        "embedding the gallery", subject.gallery, plan.embedder, plan.cropping, refused, over
    )
    n_embedded, query = len(gallery), gallery
    if subject.query is not None:
        query = embed_pictures(
            "embedding the queries", subject.query, plan.embedder, plan.cropping, refused, over
        )
        n_embedded += len(query)
    seconds = time.perf_counter() - started
    task = set_task(gallery, query, refused)
    lines = _measure(task, wanted, over)
    card = plan.embedder.card
    return EvaluationReport(
        subject=subject.name,
        gallery_file=subject.gallery_file,
        query_file=subject.query_file,
        leave_one_out=subject.query is None,
        model=EvaluatedModel(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            provider=card.provider,
            precision=card.precision,
            dimension=card.dimension or 0,
            hash_bits=card.hash_bits or 0,
            hash_method=card.hash_method or "",
        ),
        detector=plan.detector,
        crop=plan.cropping.mode,
        crop_margin=plan.cropping.margin,
        milvus_version=ping(settings.MILVUS_URI, settings.MILVUS_TOKEN, SEARCH_SECONDS),
        search=depth_settings("float"),
        n_products=len(np.unique(task.gallery_products)),
        n_gallery=len(task.gallery),
        n_query=len(task.query),
        n_own_excluded=int((task.own >= 0).sum()),
        embedded_per_second=n_embedded / seconds,
        refused=tuple(refused),
        lines=tuple(lines),
    )


def store_run(report: EvaluationReport, generation: Generation | None, asked_by: str) -> EvaluationRun:
    """Keep a report; with the generation whose embedder it was, if it was one's."""
    return EvaluationRun.objects.create(
        generation=generation, subject=report.subject, asked_by=asked_by, report=report.to_dict()
    )


def _measure(task: Task, wanted: list[tuple[LineIndex, Strategy]], over: Over[Any]) -> list[Line]:
    types = [index for index in FLOAT_INDEXES if (index, "float") in wanted] or [FLOAT_INDEXES[0]]
    with ExitStack() as stack:
        built: dict[LineIndex, BuiltGallery] = {}
        for index in over("building indexes", types):
            built[index] = stack.enter_context(built_gallery(IndexSettings(type=index), task))
        # A gallery's two collections hold embeddings and hash codes: BIN_FLAT lies beside any of the others.
        built["BIN_FLAT"] = built[types[0]]
        reference = Measurement(EXACT, "float", exactly(task))
        others = [
            Measurement(index, strategy, through_milvus(built[index].gallery, strategy))
            for index, strategy in wanted
        ]
        search_in_turns(task, [reference, *others], over)
        # Asked again: Milvus may have compacted a segment meanwhile, and searched it in another way.
        reports = {index: one.gallery.index_report() for index, one in built.items()}
    return [
        _reference_line(task, reference),
        *(_line(task, one, built[one.index], reports[one.index], reference) for one in others),
    ]


def _reference_line(task: Task, line: Measurement) -> Line:
    found = np.stack(line.found)
    p50_ms, p95_ms = line.latency_ms()
    return Line(
        index=line.index,
        strategy=line.strategy,
        used=SEARCHED_EXACTLY,
        segments=(),
        scores=replace(score(task, found, found), map=map_over_all(task)),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        computed_bytes=task.gallery.vectors.nbytes,
        folder_growth_bytes=None,
    )


def _line(
    task: Task, line: Measurement, built: BuiltGallery, at_the_end: IndexReport, reference: Measurement
) -> Line:
    hashed = line.index == "BIN_FLAT"
    before, after = (
        report.hash_collection if hashed else report.float_collection for report in (built.report, at_the_end)
    )
    gallery = built.gallery
    # An index that Milvus did not build takes no room.
    index = gallery.index if after.indexed_rows else IndexSettings(type="FLAT")
    computed = computed_index_bytes(index, len(task.gallery), gallery.dimension, gallery.hash_bits)
    p50_ms, p95_ms = line.latency_ms()
    return Line(
        index=line.index,
        strategy=line.strategy,
        used=", later ".join(dict.fromkeys((describe_use(before), describe_use(after)))),
        segments=after.segments,
        scores=score(task, np.stack(line.found), np.stack(reference.found)),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        computed_bytes=computed.hash_index if hashed else computed.float_index,
        folder_growth_bytes=None if hashed else built.folder_growth,
    )
