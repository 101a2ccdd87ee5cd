"""The pages of evaluation runs: the report as a table, what Milvus really used, and the JSON file to take along."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from backend.evaluation.models import EvaluationRun
from tests.backend.factories import make_staff

pytestmark = pytest.mark.django_db


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


def line(index: str, strategy: str, used: str, *segments: dict, **changes: Any) -> dict:
    scores = {"recall_at_1": 0.52364, "recall_at_5": 1.0, "map_at_100": 0.2936, "overlap_at_10": 0.9993}
    return {
        "index": index,
        "strategy": strategy,
        "used": used,
        "segments": list(segments),
        "scores": scores | {"map": 0.3337 if index == "exact (NumPy)" else None},
        "p50_ms": 7.04,
        "p95_ms": 29.4,
        "computed_bytes": 6_310_000,
        "folder_growth_bytes": None,
    } | changes


def make_run(*lines: dict, **changes: Any) -> EvaluationRun:
    report = {
        "schema_version": 1,
        "subject": "grocery",
        "leave_one_out": False,
        "model": {"name": "lite", "version": "1", "provider": "openvino", "precision": "fp32"},
        "detector": None,
        "crop": "box",
        "milvus_version": "2.3.5",
        "search": {"matches": 100, "ef": 128, "nprobe": 16, "rerank": 200},
        "n_products": 81,
        "n_gallery": 2_721,
        "n_query": 296,
        "n_own_excluded": 0,
        "embedded_per_second": 73.2,
        "refused": [],
        "lines": [line("exact (NumPy)", "float", "searched exactly"), *lines],
    } | changes
    return EvaluationRun.objects.create(subject="grocery", asked_by="command", report=report)


def change_url(run: EvaluationRun) -> str:
    return reverse("admin:evaluation_evaluationrun_change", args=[run.pk])


def test_each_index_has_its_row_and_says_what_really_searched(manager):
    parts = (
        {"rows": 2_000, "sealed": True, "index": "HNSW"},
        {"rows": 721, "sealed": False, "index": "searched exactly"},
    )
    run = make_run(
        line("HNSW", "float", "HNSW for 2,000 of 2,721 rows, the rest exactly", *parts),
        line("BIN_FLAT", "hash", "searched exactly", {"rows": 2_721, "sealed": True, "index": "searched exactly"}),
    )  # fmt: skip
    answer = manager.get(change_url(run))
    exact, hnsw, hashed = answer.context["rows"]
    assert (exact["index"], exact["segments"]) == ("exact (NumPy)", "")
    assert hnsw["used"] == "HNSW for 2,000 of 2,721 rows, the rest exactly"
    assert hnsw["segments"] == "2,000 rows HNSW, 721 rows searched exactly"
    assert hnsw["figures"] == ["52.36", "100.00", "29.36", "99.93", "7.04", "29.40", "6.31", ""]
    assert len(hnsw["figures"]) == len(answer.context["figure_columns"])
    assert (hashed["strategy"], hashed["segments"]) == ("hash", "")
    page = answer.content.decode()
    assert "mAP over the whole gallery, exact search: 33.37&nbsp;%" in page
    assert "recall_at_1" not in page
    assert "52.36 % of 296 queries" in (
        manager.get(reverse("admin:evaluation_evaluationrun_changelist")).content.decode()
    )


def test_the_report_is_taken_along_as_the_command_writes_it(manager):
    run = make_run()
    url = reverse("admin:evaluation_evaluationrun_report", args=[run.pk])
    assert url in manager.get(change_url(run)).content.decode()
    answer = manager.get(url)
    assert answer["Content-Disposition"] == f'attachment; filename="evaluation-{run.pk}.json"'
    assert answer.json() == run.report
    assert make_staff("nobody").get(url).status_code == 403


def test_what_was_left_out_is_named_and_a_long_list_is_cut(manager):
    refused = [
        {"file": "query.csv", "row": row, "picture": f"q{row}.jpg", "reason": "cannot be read"}
        for row in range(2, 62)
    ]
    page = manager.get(change_url(make_run(refused=refused))).content.decode()
    assert "q2.jpg" in page
    assert "and 10 more" in page


def test_a_run_that_lacks_a_newer_figure_is_shown_without_it(manager):
    old = line("HNSW", "float", "HNSW")
    del old["p95_ms"], old["scores"]["overlap_at_10"]
    row = manager.get(change_url(make_run(old))).context["rows"][1]
    assert row["figures"] == ["52.36", "100.00", "29.36", "", "7.04", "", "6.31", ""]


def test_answers_strangers_and_baskets_are_shown_where_they_were_measured(manager):
    shares = {"recognised": [0.5, 0.4, 0.6], "needs_confirmation": [0.4, 0.3, 0.5], "unknown": [0.1, 0, 0.2]}
    answers = {
        "thresholds": "threshold set 3",
        "known": shares | {"wrong_accepts": [0.0123, 0, 0.03]},
        "left_out": shares | {"wrong_accepts": [0.5, 0.4, 0.6]},
        "strangers": None,
        "calibration": {"error": [0.034, 0.02, 0.06], "bins": [[0.2, 0.1, 0.3], [0.9, 0.95, 0.7]]},
        "risk_coverage": [[0.1, 0.0], [1.0, 0.33]],
    }
    plain = line("exact (NumPy)", "float", "searched exactly", answers=answers, open_set=None)
    page = manager.get(change_url(make_run(lines=[plain]))).content.decode()
    for told in (
        "Thresholds: threshold set 3",
        "asked once more with their own product left out",
        ">1.23<",
        ">3.40<",
    ):
        assert told in page, told
    assert page.count("<svg viewBox") == 2
    assert "Baskets of whole scenes" not in page

    open_set = {"curve": [[0, 0.1], [1, 0.5]], "auroc": [0.9, 0.8, 0.95], "fpr_at_95_tpr": [0.4, 0.3, 0.5],
                "identification_at_1_percent": [0.31, 0.2, 0.4], "identification_at_01_percent": None}  # fmt: skip
    judged = line(
        "HNSW", "float", "HNSW", answers=answers | {"strangers": answers["left_out"]}, open_set=open_set
    )
    figures = {
        name: [0.25, 0.1, 0.5]
        for name in (
            "checkout_accuracy",
            "average_counting_distance",
            "mean_category_counting_distance",
            "mean_category_iou",
        )
    }
    scenes = {"n_scenes": 4, "n_pieces": 20, "n_pieces_unknown_sku": 2, "detector": "lite 1", "index": "HNSW",
              "strategy": "float", "thresholds": "fitted to the queries", "recognised": figures,
              "proposed": figures}  # fmt: skip
    unknown = {"n_query": 7, "n_query_held_out": 5, "n_query_unknown_sku": 2, "share": 0.2, "seed": 4,
               "held_out": ["A", "B"]}  # fmt: skip
    page = manager.get(change_url(make_run(lines=[judged], scenes=scenes, unknown=unknown))).content.decode()
    for told in ("2 products were held out of it (seed 4), and 2 have a SKU that it lacks", ">90.00<", ">31.00<",
                 "4 scenes with 20 pieces, 2 of them of a SKU", "25.00 (10.00 to 50.00)"):  # fmt: skip
        assert told in page, told


DETAILS = {
    "histograms": {"right": [0] * 30 + [3] * 10, "wrong": [0] * 20 + [1] * 20, "strangers": [0] * 40},
    "confusions": [{"sku": "COLA", "answered": "ZERO", "n": 3, "n_query": 9, "query": "q:2", "nearest": None}],
    "worst": [
        {"picture": "q7.jpg", "sku": "COLA", "answered": "ZERO", "similarity": 0.91, "right_similarity": None,
         "query": "q:2", "nearest": "gone"},
    ],
    "products": [{"sku": "COLA", "n_pictures": 1, "n_query": 0, "right": None, "taken_for": None,
                  "advice": "a second picture"}],
}  # fmt: skip


def test_the_page_as_one_file_needs_nothing_beside_it(manager):
    run = make_run(details=DETAILS, subject="<b>shop</b>")
    EvaluationRun.objects.update(pictures={"q:2": "data:image/jpeg;base64,AAAA"})
    url = reverse("admin:evaluation_evaluationrun_html", args=[run.pk])
    page = manager.get(change_url(run)).content.decode()
    assert url in page
    answer = manager.get(url)
    assert answer["Content-Disposition"] == f'attachment; filename="evaluation-{run.pk}.html"'
    file = answer.content.decode()
    for shown in (page, file):
        for told in (
            "<strong>COLA</strong> taken for <strong>ZERO</strong>: 3 of 9 queries",
            "data:image/jpeg;base64,AAAA",
            "none of its own pictures among the nearest hundred",
            "a second picture",
            "<svg viewBox",
        ):
            assert told in shown, told
    assert "&lt;b&gt;shop" in file
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", file)
    assert not re.findall(r"url\((?!data:)", file)
    assert ".ck-card" in file
    assert make_staff("nobody").get(url).status_code == 403


def test_two_are_compared_line_by_line(manager):
    better = line("exact (NumPy)", "float", "searched exactly")
    better["scores"]["recall_at_1"] = 0.6
    runs = make_run(line("HNSW", "float", "HNSW")), make_run(lines=[better])
    url = reverse("admin:evaluation_evaluationrun_changelist")
    chosen = {"action": "compare", "_selected_action": [run.pk for run in runs]}
    answer = manager.post(url, chosen, follow=True)
    [exact, hnsw] = answer.context["compared"]
    recall = exact["rows"][0]
    assert (recall["name"], recall["values"], recall["difference"]) == ("R@1 %", ["52.36", "60.00"], "+7.64")
    assert hnsw["rows"][0]["values"] == ["52.36", ""]
    assert "the figures are not of the same queries" not in answer.content.decode()
    assert "query by query" not in answer.content.decode()
    asked = {"queries": {"sha256": "a", "products": [1, 1, 2, 2]}}
    paired = [
        make_run(lines=[line("exact (NumPy)", "float", "", right_at_1=right)], **asked)
        for right in ("1000", "1110")
    ]
    pair = reverse("admin:evaluation_evaluationrun_compare", args=[one.pk for one in paired])
    assert "R@1 query by query: +50.00 points" in manager.get(pair).content.decode()
    other = make_run(n_query=5)
    pair = reverse("admin:evaluation_evaluationrun_compare", args=[runs[0].pk, other.pk])
    assert "the figures are not of the same queries" in manager.get(pair).content.decode()
    one = manager.post(url, chosen | {"_selected_action": [other.pk]}, follow=True)
    assert "Choose two evaluations, not 1." in one.content.decode()
    assert make_staff("nobody").get(pair).status_code == 403


def test_baskets_of_two_are_compared_in_their_own_units(manager):
    def scenes(accuracy: float, distance: float) -> dict:
        figures = {"checkout_accuracy": [accuracy, 0, 1], "average_counting_distance": [distance, 0, 9]}
        rest = dict.fromkeys(["mean_category_counting_distance", "mean_category_iou"])
        return {"recognised": figures | rest, "proposed": figures | rest}

    runs = make_run(scenes=scenes(0.25, 1.5)), make_run(scenes=scenes(0.5, 1.0))
    pair = reverse("admin:evaluation_evaluationrun_compare", args=[run.pk for run in runs])
    [_, recognised, proposed] = manager.get(pair).context["compared"]
    assert recognised["line"] == "baskets, recognised"
    assert proposed["line"] == "baskets, with what needs confirmation"
    assert [(row["name"], row["values"], row["difference"]) for row in recognised["rows"]] == [
        ("cAcc %", ["25.00", "50.00"], "+25.00"),
        ("ACD", ["1.50", "1.00"], "-0.50"),
    ]
    pair = reverse("admin:evaluation_evaluationrun_compare", args=[runs[0].pk, make_run().pk])
    [_, recognised, _] = manager.get(pair).context["compared"]
    assert recognised["rows"][0]["values"] == ["25.00", ""]


def test_an_evaluation_that_is_not_there_is_a_404(manager):
    for name in ("change", "report", "html"):
        assert manager.get(reverse(f"admin:evaluation_evaluationrun_{name}", args=[99])).status_code == 404
