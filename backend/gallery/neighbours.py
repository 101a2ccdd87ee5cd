"""What a picture would do to the gallery: leaving one out, before and after, without going through the whole of it.

Leaving one out, each picture of the gallery is asked with in turn, itself excluded, and finds some other picture
first. It is right when that one is of its own product. A new picture makes another's wrong when it is of another
product and becomes the first that is found; it makes a wrong one right when it is of the same product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.catalogue.models import ProductState, ReferenceImage
from backend.gallery.loading import QUERIES_A_CALL
from recognition.embedder import Embeddings
from recognition.gallery import Entry, Gallery, Match, SearchSettings, embeddings_of

# The new picture's nearest pictures, each of which is asked what it finds now.
NEIGHBOURS = 100
# Of those only the first other one counts; a few more, for entries of products that are retired or just deleted.
FIRST_FEW = 10


@dataclass(frozen=True)
class Change:
    """A picture of the gallery that would find the new one first.

    Attributes:
        reference_image_id: of that picture.
        product_id: that it shows.
        found_product_id: of the picture that it finds first now; None where it finds nothing.
        similarity_before: to that one; None likewise.
        similarity: to the new picture, which is higher.
    """

    reference_image_id: int
    product_id: int
    found_product_id: int | None
    similarity_before: float | None
    similarity: float


@dataclass(frozen=True)
class Effect:
    """What a new picture would change in the gallery.

    Attributes:
        matches: the gallery's pictures that are nearest to it, best first, with the products they show now.
        worse: pictures of other products that find their own product first now, and would find this one.
        better: pictures of its own product that find another product first now, and would find this one.
        exact_from: a similarity. Whatever picture has any other picture nearer than this was judged; None where
            every picture of the gallery was.
    """

    matches: tuple[Match, ...]
    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    exact_from: float | None


def find_effect(
    gallery: Gallery,
    embedding: Embeddings,
    product_id: int,
    how: SearchSettings,
    *,
    neighbours: int = NEIGHBOURS,
    without: int | None = None,
) -> Effect:
    """What the gallery would answer otherwise if a picture with this embedding were in it.

    A picture of the gallery finds the new one first only if the new one is nearer to it than all others. Being near
    is mutual, so such pictures are among the new one's own neighbours: only these are looked at. Those beyond the
    last of them are no nearer to the new picture than `exact_from`; such a picture can be missed only if all others
    are farther from it still. Where `exact_from` lies below the threshold of 'unknown', nothing that is answered can
    be missed. So it costs `neighbours` / 10 searches, however large the gallery is.

    It is as exact as the search: the generation's index and strategy find, as they do for photos. A product with one
    picture cannot be judged this way, for without it there is nothing right to find.

    Args:
        embedding: of the new picture, one row.
        product_id: that it shows.
        how: to search.
        neighbours: looked at, at most.
        without: a picture that is in the gallery and is taken for not being there.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    found = gallery.search(embedding, how, limit=neighbours + (without is not None))[0]
    exact_from = found[-1].similarity if len(found) >= neighbours else None
    shown = _products_of([match.reference_image_id for match in found])
    matches = tuple(
        Match(match.reference_image_id, shown[match.reference_image_id], match.similarity)
        for match in found
        if match.reference_image_id in shown and match.reference_image_id != without
    )
    first = _first_found(gallery, matches, how, without)
    changes = []
    for match in matches:
        before = first.get(match.reference_image_id)
        if before is None or _comes_first(match.similarity, product_id, before):
            changes.append(
                Change(
                    match.reference_image_id,
                    match.product_id,
                    None if before is None else before.product_id,
                    None if before is None else before.similarity,
                    match.similarity,
                )
            )
    return Effect(
        matches,
        worse=tuple(
            one for one in changes if one.product_id != product_id and one.found_product_id == one.product_id
        ),
        better=tuple(
            one for one in changes if one.product_id == product_id and one.found_product_id != product_id
        ),
        exact_from=exact_from,
    )


def find_nearest_of_product(
    gallery: Gallery,
    embedding: Embeddings,
    product_id: int,
    how: SearchSettings,
    *,
    without: int | None = None,
) -> Match | None:
    """The product's nearest picture, however many of others are nearer.

    Args:
        embedding: one row.
        without: a picture that is taken for not being there.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    found = gallery.search(embedding, how, product_ids=[product_id], limit=FIRST_FEW)[0]
    shown = _products_of([match.reference_image_id for match in found])
    for match in found:
        if shown.get(match.reference_image_id) == product_id and match.reference_image_id != without:
            return match
    return None


def _comes_first(similarity: float, product_id: int, before: Match) -> bool:
    """Of two equally near, the lower product id is answered (recognition.ranking.gather_candidates)."""
    return (-similarity, product_id) < (-before.similarity, before.product_id)


def _products_of(reference_image_ids: Sequence[int]) -> dict[int, int]:
    """Of those pictures that may be answered now: the product that each shows."""
    return dict(
        ReferenceImage.objects.filter(
            pk__in=reference_image_ids, product__state=ProductState.ACTIVE
        ).values_list("pk", "product_id")
    )


def _first_found(
    gallery: Gallery, pictures: Sequence[Match], how: SearchSettings, without: int | None
) -> Mapping[int, Match]:
    """What each of these pictures finds first now, itself left out; those that find nothing are left out."""
    first: dict[int, Match] = {}
    waiting = gallery.fetch([match.reference_image_id for match in pictures])
    # Most need their few nearest. Whoever stands among many that may not be answered is asked once more.
    for limit in (FIRST_FEW, how.matches):
        found = _search_each(gallery, waiting, how, limit)
        shown = _products_of([one.reference_image_id for matches in found.values() for one in matches])
        for reference_image_id, matches in found.items():
            answerable = [
                Match(one.reference_image_id, shown[one.reference_image_id], one.similarity)
                for one in matches
                if one.reference_image_id in shown
                and one.reference_image_id not in (reference_image_id, without)
            ]
            if answerable:
                first[reference_image_id] = min(answerable, key=lambda one: (-one.similarity, one.product_id))
        waiting = [
            entry
            for entry in waiting
            if entry.reference_image_id not in first and len(found[entry.reference_image_id]) >= limit
        ]
        if not waiting:
            break
    return first


def _search_each(
    gallery: Gallery, entries: Sequence[Entry], how: SearchSettings, limit: int
) -> dict[int, list[Match]]:
    """The matches of each entry, itself among them."""
    found: dict[int, list[Match]] = {}
    for start in range(0, len(entries), QUERIES_A_CALL):
        batch = entries[start : start + QUERIES_A_CALL]
        matches = gallery.search(embeddings_of(batch), how, limit=limit)
        found |= {entry.reference_image_id: own for entry, own in zip(batch, matches, strict=True)}
    return found
