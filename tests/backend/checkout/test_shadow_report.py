"""What a shadow found, counted by hand and by the report; shown in the admin, over the API and by the command."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from rest_framework.test import APIClient

from backend.checkout import services
from backend.checkout.models import Difference, RecognisedItem, Recognition, RecognitionState, ShadowedItem
from backend.checkout.review import reject
from backend.checkout.shadow_report import Right, describe_summary, list_shadowed_items, summarise_shadow
from backend.gallery import generations
from backend.gallery.models import Generation, InstalledModel, Shadow
from recognition.metrics import wilson_interval
from tests.backend.factories import make_device, make_product, make_staff

R, C, U = "recognised", "needs_confirmation", "unknown"
# A photo a line: what was answered and what the shadow says of each item.
PHOTOS = [
    [(R, "A", R, "A"), (R, "B", R, "B")],
    [(R, "A", R, "A"), (R, "B", R, "C")],
    [(R, "A", C, "A"), (C, "B", R, "B"), (U, "", U, "")],
    [(R, "A", U, ""), (U, "", C, "C")],
    [(C, "B", C, "A")],
    [(C, "B", U, ""), (U, "", R, "B"), (C, "A", C, "A")],
]


@pytest.fixture
def ready(db) -> Generation:
    """Ready beside an active one; rows without a model or collection behind them."""
    embedder = InstalledModel.objects.create(name="e", version="1", task="embedder", card={})
    Generation.objects.create(embedder=embedder, index={"type": "FLAT"}, collection="a", state="active")
    return Generation.objects.create(embedder=embedder, index={"type": "FLAT"}, collection="b", state="ready")


@pytest.fixture
def shadow(ready) -> Shadow:
    return generations.shadows.start_shadow(ready, share=0.25, started_by="a test")


@pytest.fixture
def ran(shadow) -> list[ShadowedItem]:
    """PHOTOS, as they would be stored."""
    products = {sku: make_product(sku) for sku in "ABC"}
    items = []
    for photo in PHOTOS:
        recognition = Recognition.objects.create(
            state=RecognitionState.DONE, answer={"image": {"width": 100, "height": 100}, "items": []}
        )
        for number, (result, sku, said, named) in enumerate(photo, start=1):
            product, shown = products.get(sku), products.get(named)
            item = RecognisedItem.objects.create(
                recognition=recognition,
                number=number,
                box=[0, 0, 10, 10],
                result=result,
                sku=sku,
                name=product.name if product else "",
                product=product,
                similarity=0.5,
            )
            ran = ShadowedItem.objects.create(
                shadow=shadow,
                item=item,
                result=said,
                sku=named,
                name=shown.name if shown else "",
                product=shown,
                similarity=0.6,
                active_confidence=0.7,
                confidence=0.8,
                difference=Difference.between(item, said, named),
            )
            items.append(ran)
    return items


def correct(shadowed: ShadowedItem, sku: str | None) -> services.Correction:
    return services.correct(shadowed.item.recognition, made_by="anna", item=shadowed.item.number, sku=sku)


@pytest.fixture
def corrected(ran) -> list[ShadowedItem]:
    """By number in `ran`: 0 both right; 3 only the shadow; 7 only what was answered; 8 neither; 6 a plain 'unknown'."""
    for number, sku in ((0, "A"), (3, "C"), (7, "A"), (8, "A"), (6, None)):
        correct(ran[number], sku)
    return ran


def test_differences_are_counted_by_their_kind(shadow, ran):
    summary = summarise_shadow(shadow)
    assert (summary.recognitions.n, summary.recognitions.n_same) == (6, 1)
    assert (summary.items.n, summary.items.n_same) == (13, 5)
    assert summary.items.agreement == (5 / 13, *wilson_interval(5, 13))
    assert summary.differences == {
        "another_product": 2,
        "recognised_to_needs_confirmation": 1,
        "recognised_to_unknown": 1,
        "needs_confirmation_to_recognised": 1,
        "needs_confirmation_to_unknown": 1,
        "unknown_to_recognised": 1,
        "unknown_to_needs_confirmation": 1,
    }


def test_products_gain_and_lose_what_one_side_names_more_often(shadow, ran):
    shifts = {one.sku: one for one in summarise_shadow(shadow).products}
    told = {
        sku: (one.recognised_active, one.recognised_candidate, one.named_active, one.named_candidate)
        for sku, one in shifts.items()
    }
    assert told == {"A": (4, 2, 5, 5), "B": (2, 3, 5, 3), "C": (0, 1, 0, 2)}
    assert list(shifts) == ["A", "B", "C"]
    assert shifts["C"].name == "Product C"


def test_the_last_correction_that_stands_says_who_was_right(shadow, corrected):
    assert summarise_shadow(shadow).right == {"both": 2, "active": 1, "candidate": 1, "neither": 1}
    reject(correct(corrected[0], "B"), reviewed_by="bert")
    assert summarise_shadow(shadow).right["both"] == 2
    correct(corrected[0], "B")
    assert summarise_shadow(shadow).right == {"both": 1, "active": 1, "candidate": 1, "neither": 2}
    said = {one.pk: (one.corrected, one.corrected_sku, one.right) for one in list_shadowed_items(shadow)}
    assert said[corrected[3].pk] == (True, "C", Right.CANDIDATE)
    assert said[corrected[6].pk] == (True, "", Right.BOTH)
    assert said[corrected[1].pk] == (False, None, None)


def test_what_is_empty_or_another_shadow_s_is_not_counted(ready, shadow, ran):
    generations.shadows.end_shadow(ready, ended_by="a test")
    later = generations.shadows.start_shadow(ready, share=1, started_by="a test")
    summary = summarise_shadow(later)
    assert (summary.items.n, summary.items.agreement, summary.n_corrected) == (0, None, 0)
    assert "nothing was run yet; 0 dropped, 0 failed" in describe_summary(later, summary)
    json.dumps(summary.to_dict())
    assert summarise_shadow(shadow).items.n == 13


# --- in the terminal, over the API, in the admin ----------------------------------------------------------
def test_the_command_turns_on_shows_and_turns_off(ready, capsys):
    def say(*arguments: str) -> str:
        call_command("shadow_generation", str(ready.pk), *arguments)
        return " ".join(capsys.readouterr().out.split())

    assert "never ran in the shadow" in say()
    with pytest.raises(CommandError, match="found a share of 2, a number from 0 to 1"):
        say("--share", "2")
    assert "runs on 0.25 of the recognitions since" in say("--share", "0.25")
    assert "runs on 0.5 of" in say("--share", "0.5")
    assert "turned off by command shadow_generation" in say("--off")
    with pytest.raises(CommandError, match="does not run in the shadow"):
        say("--off")
    with pytest.raises(CommandError, match="there is no generation 999"):
        call_command("shadow_generation", "999")


def test_the_command_tells_what_was_found(ready, shadow, corrected, capsys):
    call_command("shadow_generation", str(ready.pk))
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "13 items of 6 recognitions (0 dropped, 0 failed), 38.46% answered the same",
        "Of 5 that people corrected, 2 both had right, 1 only the active one, 1 only this one.",
        "another product: 2",
        "recognised -> unknown: 1",
        "3 products gain or lose",
    ):
        assert text in said, text


def test_a_program_turns_on_reads_and_turns_off(ready, shadow, corrected):
    api = APIClient(headers=make_device("program")[1])
    url = f"/api/v1/generations/{ready.pk}/shadow"
    told = api.get(url).json()
    assert (told["generation"], told["share"], told["ended_at"]) == (ready.pk, 0.25, None)
    assert told["items"]["n"] == 13
    assert told["items"]["agreement"] == [round(one, 4) for one in (5 / 13, *wilson_interval(5, 13))]
    assert (told["differences"]["another_product"], told["right"]["candidate"]) == (2, 1)
    assert told["products"][0] == {
        "sku": "A", "name": "Product A", "recognised_active": 4, "recognised_candidate": 2, "named_active": 5,
        "named_candidate": 5,
    }  # fmt: skip
    page = api.get(f"{url}/items", {"page_size": 5}).json()
    assert [one["id"] for one in page["results"]] == [one.pk for one in reversed(corrected)][:5]
    assert len(api.get(page["next"]).json()["results"]) == 5
    differing = api.get(f"{url}/items", {"differs": "true"}).json()["results"]
    assert len(differing) == 8
    [found] = api.get(f"{url}/items", {"right": "candidate"}).json()["results"]
    assert found["active"] == {"result": R, "sku": "B", "similarity": 0.5, "confidence": 0.7}
    assert found["candidate"] == {"result": R, "sku": "C", "similarity": 0.6, "confidence": 0.8}
    assert (found["difference"], found["corrected"], found["corrected_sku"]) == ("another_product", True, "C")
    assert api.get(f"{url}/items", {"difference": "nothing"}).status_code == 400
    for share in (-1, 2, "much", None):
        refused = api.put(url, {"share": share}, format="json")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert api.put(url, {"share": 0.5}, format="json").json()["share"] == 0.5
    assert api.delete(url).json()["ended_because"] == "turned off by program"
    assert api.delete(url).json()["code"] == "generation-state"
    assert api.get(f"/api/v1/generations/{ready.pk + 1}/shadow").status_code == 404
    till = APIClient(headers=make_device("till", "recognise", "catalogue")[1])
    assert {till.get(url).status_code, till.put(url).status_code, till.get(f"{url}/items").status_code} == {
        403
    }


def test_an_operator_does_it_in_the_admin_and_a_manager_only_looks(ready):
    operator, manager = make_staff("operator", "operator"), make_staff("manager", "manager")
    page = reverse("admin:gallery_generation_change", args=[ready.pk])
    turned_on = reverse("admin:gallery_generation_shadow", args=[ready.pk])
    ended = reverse("admin:gallery_generation_end_shadow", args=[ready.pk])
    assert "Run in the shadow" in operator.get(page).content.decode()
    assert "In the shadow" not in manager.get(page).content.decode()
    for url in (turned_on, ended):
        assert manager.post(url).status_code == 403
        assert operator.get(url).status_code == 405
    for share in ("", "much", "1.5", "nan"):
        told = operator.post(turned_on, {"share": share}, follow=True).content.decode()
        assert "a number from 0 to 1 is wanted" in told, share
    told = operator.post(turned_on, {"share": "0.2"}, follow=True).content.decode()
    assert "Runs in the shadow on a share of 0.2" in told
    assert "Nothing was run yet" in told
    assert "in the shadow" in operator.get(reverse("admin:gallery_generation_changelist")).content.decode()
    Shadow.objects.update(n_dropped=7)
    assert "-Q bulk,shadow" in manager.get(page).content.decode()
    assert "what was found stays" in operator.post(ended, follow=True).content.decode()
    assert "does not run in the shadow" in operator.post(ended, follow=True).content.decode()


def test_the_pages_show_what_differs(ready, shadow, corrected):
    operator = make_staff("operator", "operator")
    page = operator.get(reverse("admin:gallery_generation_change", args=[ready.pk])).content.decode()
    for text in (
        "5 of 13",
        "38.5 (17.7 to 64.5)",
        "3 products gain",
        "All 8 that differ",
        "the shadow is right",
        "B Product B, recognised",
    ):
        assert text in page, text
    listed = reverse("admin:checkout_shadoweditem_changelist")
    for filters, n in (
        ({}, 13),
        ({"difference": "differing"}, 8),
        ({"difference": "another_product"}, 2),
        ({"right": "corrected"}, 5),
        ({"right": "candidate"}, 1),
        ({"shadow__id__exact": shadow.pk, "q": '"Product C"'}, 2),
    ):
        assert operator.get(listed, filters).context["cl"].result_count == n, filters
    crop = reverse("admin:checkout_shadoweditem_crop", args=[corrected[0].pk])
    assert operator.get(crop).status_code == 404
    assert make_staff("nobody").get(listed).status_code == 403
    empty = make_staff("manager", "manager")
    ShadowedItem.objects.all().delete()
    assert "Nothing was run in the shadow" in empty.get(listed).content.decode()
