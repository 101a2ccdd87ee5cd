"""Measuring what the gallery finds, how fast, and how large it is (docs/evaluation.md has the protocol).

Each query's embedding against all gallery embeddings, the query itself excluded when it is in the gallery: by exact
search in NumPy, and by Milvus in collections made for the purpose, which are dropped at the end whatever happens.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from backend.common.problems import Problem
from backend.evaluation.details import Asked, describe_details
from backend.evaluation.embedding import Crop, Cropping, EmbeddedPictures, Over, embed_pictures
from backend.evaluation.models import EvaluationRun
from backend.evaluation.open_set import (
    CROSS_FITTED,
    Judge,
    get_searched,
    judge_of,
    measure_answers,
    measure_open_set,
)
from backend.evaluation.pictures import LIVE_CATALOGUE, Refusal, Subject
from backend.evaluation.report import (
    EXACT,
    EvaluatedModel,
    EvaluationReport,
    Line,
    LineIndex,
    Queries,
    Unknown,
    describe_use,
)
from backend.evaluation.scenes import Scenes, SearchedBy, measure_scenes, open_scenes
from backend.evaluation.scoring import is_right_at_1, map_over_all, score
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
from backend.evaluation.task import OpenSet, Task, nothing_to_measure, set_task
from backend.gallery.loading import get_detector
from backend.gallery.models import Generation
from backend.gallery.selectors import get_active_detector, get_threshold_set
from backend.gallery.thresholds import FALSE_ACCEPTS, search_settings, was_fitted_on
from recognition.calibration import fit_as_told
from recognition.embedder import ProductEmbedder
from recognition.gallery import IndexReport, IndexSettings, Strategy, ping
from recognition.index import SEARCHED_EXACTLY, IndexType, computed_index_bytes

FLOAT_INDEXES: tuple[IndexType, ...] = ("FLAT", "HNSW", "IVF_FLAT")
INDEXES: tuple[LineIndex, ...] = (*FLOAT_INDEXES, "BIN_FLAT")
STRATEGIES: tuple[Strategy, ...] = ("float", "hash", "hash_rerank")

Measured = Mapping[str, Any] | None


@dataclass(frozen=True)
class Plan:
    """How to evaluate.

    Attributes:
        generation: the active one, where the embedder is that one's.
        detector: name and version of the detector that crops, if one does.
        indexes: out of INDEXES; hash strategies search BIN_FLAT, float the others.
        strategies: out of STRATEGIES.
        open_set: which products are held out of the gallery, if any.
        scenes: to be recognised whole, if any.
    """

    embedder: ProductEmbedder
    generation: Generation | None
    cropping: Cropping
    detector: str | None
    indexes: Sequence[LineIndex]
    strategies: Sequence[Strategy]
    open_set: OpenSet | None = None
    scenes: Scenes | None = None

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
    model: str | None,
    crop: Crop,
    indexes: Sequence[LineIndex],
    strategies: Sequence[Strategy],
    open_set: OpenSet | None = None,
    scenes: Path | None = None,
) -> Plan:
    """A plan from what an operator names.

    Args:
        model: as `get_chosen_embedder` takes it.
        scenes: a folder as `open_scenes` reads it.
    Raises:
        Problem: 404, there is no such embedder; 409, no detector is active to crop with.
        ModelRefused: a model does not run as its card says.
    """
    chosen = get_chosen_embedder(model)
    return Plan(
        embedder=chosen.embedder,
        generation=chosen.generation,
        cropping=make_cropping(chosen.embedder, crop),
        detector=str(get_active_detector()) if crop == "detect" else None,
        indexes=indexes,
        strategies=strategies,
        open_set=open_set,
        scenes=None if scenes is None else open_scenes(scenes),
    )


def make_cropping(embedder: ProductEmbedder, crop: Crop) -> Cropping:
    """How pictures are cropped for an embedder.

    Raises:
        Problem: 409, no detector is active to crop with.
    """
    detector = get_active_detector() if crop == "detect" else None
    if crop == "detect" and detector is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-detector",
            "--crop detect needs a detector; install one with `install_model DIR --activate`",
        )
    return Cropping(
        mode=crop,
        detector=None if detector is None else get_detector(detector),
        margin=embedder.card.crop_margin,
        minimum_side=embedder.card.minimum_side_pixels,
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
    task = set_task(gallery, query, refused, plan.open_set)
    judges = {strategy: _judge(subject, plan, task, query, strategy) for strategy in STRATEGIES}
    lines, scenes, found = _measure(task, plan, wanted, judges, refused, over)
    details = describe_details(Asked(task, gallery, query, found, get_searched(task, found, "float")))
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
        n_query=int(task.known.sum()),
        n_own_excluded=int((task.own >= 0).any(axis=1).sum()),
        queries=_describe_queries(task, query),
        unknown=_describe_unknown(task, plan.open_set),
        embedded_per_second=n_embedded / seconds,
        refused=tuple(refused),
        lines=tuple(lines),
        scenes=scenes,
        details=details,
    )


def _judge(subject: Subject, plan: Plan, task: Task, query: EmbeddedPictures, strategy: Strategy) -> Judge:
    """The generation's threshold set, unless it was fitted on any of these queries; else what is fitted crosswise."""
    if plan.generation is None or subject.name == LIVE_CATALOGUE:
        return CROSS_FITTED
    threshold_set = get_threshold_set(plan.generation, strategy)
    if threshold_set is None or was_fitted_on(threshold_set, query.sha256):
        return CROSS_FITTED
    return judge_of(threshold_set, task)


def _describe_queries(task: Task, query: EmbeddedPictures) -> Queries:
    known = task.of_known()
    keys = "\n".join(query.keys[row] for row in known.query_rows)
    return Queries(hashlib.sha256(keys.encode()).hexdigest(), tuple(known.query_products.tolist()))


def _describe_unknown(task: Task, open_set: OpenSet | None) -> Unknown:
    strangers = [task.skus[product] for product in task.query_products[~task.known]]
    n_held_out = sum(sku in task.held_out for sku in strangers)
    return Unknown(
        n_query=len(strangers),
        n_query_held_out=n_held_out,
        n_query_unknown_sku=len(strangers) - n_held_out,
        share=None if open_set is None else open_set.share,
        seed=None if open_set is None else open_set.seed,
        held_out=tuple(sorted(task.held_out)),
    )


def store_run(report: EvaluationReport, generation: Generation | None, asked_by: str) -> EvaluationRun:
    """Keep a report; with the generation whose embedder it was, if it was one's."""
    return EvaluationRun.objects.create(
        generation=generation,
        subject=report.subject,
        asked_by=asked_by,
        report=report.to_dict(),
        pictures=report.details.pictures,
    )


def _measure(
    task: Task,
    plan: Plan,
    wanted: list[tuple[LineIndex, Strategy]],
    judges: Mapping[Strategy, Judge],
    refused: list[Refusal],
    over: Over[Any],
) -> tuple[list[Line], Measured, NDArray[np.intp]]:
    """The lines, the scenes, and what exact search found."""
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
        scenes = None
        if plan.scenes is not None:
            by = _searched_as_served(task, [reference, *others], built, judges)
            embedder, margin = plan.embedder, plan.cropping.margin
            scenes = measure_scenes(plan.scenes, task, embedder, margin, by, refused, over)
    lines = []
    for one in over("judging the answers", [reference, *others]):
        open_set, answers = _judge_answers(task, one, judges[one.strategy])
        if one is reference:
            lines.append(_reference_line(task, one, open_set, answers))
        else:
            lines.append(_line(task, one, built[one.index], reports[one.index], reference, open_set, answers))
    return lines, scenes, np.stack(reference.found)


def _searched_as_served(
    task: Task,
    lines: Sequence[Measurement],
    built: Mapping[LineIndex, BuiltGallery],
    judges: Mapping[Strategy, Judge],
) -> SearchedBy:
    """Scenes are searched with the deployment's strategy where it is among the lines, and HNSW where that is."""
    line = min(lines[1:], key=lambda one: (one.strategy != settings.SEARCH_STRATEGY, one.index != "HNSW"))
    by = judges[line.strategy]
    thresholds, confidence, name = by.thresholds, by.confidence, by.name
    if thresholds is None:
        # Fitted to all queries: the scenes are others.
        searched = get_searched(task, np.stack(line.found), line.strategy)
        known, strangers = searched.answers_of_known(), searched.answers_of_strangers()
        thresholds = fit_as_told(known, strangers, FALSE_ACCEPTS)
        name = "fitted to the queries"
    return SearchedBy(
        line.index,
        built[line.index].gallery,
        search_settings(line.strategy),
        thresholds,
        confidence,
        name,
    )


def _judge_answers(task: Task, line: Measurement, by: Judge) -> tuple[Measured, Measured]:
    searched = get_searched(task, np.stack(line.found), line.strategy)
    return measure_open_set(searched), measure_answers(searched, by)


def _of_known(task: Task, line: Measurement) -> NDArray[np.intp]:
    found: NDArray[np.intp] = np.stack(line.found)[task.known]
    return found


def _reference_line(task: Task, line: Measurement, open_set: Measured, answers: Measured) -> Line:
    found = _of_known(task, line)
    p50_ms, p95_ms = line.latency_ms()
    known = task.of_known()
    return Line(
        index=line.index,
        strategy=line.strategy,
        used=SEARCHED_EXACTLY,
        segments=(),
        scores=replace(score(known, found, found), map=map_over_all(known)),
        right_at_1=is_right_at_1(known, found),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        computed_bytes=task.gallery.vectors.nbytes,
        folder_growth_bytes=None,
        open_set=open_set,
        answers=answers,
    )


def _line(
    task: Task,
    line: Measurement,
    built: BuiltGallery,
    at_the_end: IndexReport,
    reference: Measurement,
    open_set: Measured,
    answers: Measured,
) -> Line:
    found = _of_known(task, line)
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
        scores=score(task.of_known(), found, _of_known(task, reference)),
        right_at_1=is_right_at_1(task.of_known(), found),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        computed_bytes=computed.hash_index if hashed else computed.float_index,
        folder_growth_bytes=None if hashed else built.folder_growth,
        open_set=open_set,
        answers=answers,
    )
