"""Label photos by a detector that exists already, so that another learns from them.

    python -m training.data.teacher PHOTOS OUT.json --model MODEL [--only PATTERN ...]

Only photos in which the teacher sees one main body are taken, such as a packet held before a shelf: what is small
around it is ground to the student, as it is to a checkout. A pile has no main body, and a teacher's boxes in it are not
to be learned.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recognition.boxes import area
from recognition.detector import MainBodyDetector, open_detector
from recognition.errors import ImageRefused, RecognitionError
from recognition.images import decode
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings
from training.data.coco import FOREGROUND, write_coco
from training.data.faults import watched
from training.data.published import Boxed

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
# Detection scores: from the first a find is a main body, from the second it may be one.
SURE, DOUBTFUL = 0.4, 0.3
# A main body covers at least this share of its photo.
LEAST_SHARE = 0.1


class Labelled(NamedTuple):
    """What came of it.

    Attributes:
        scenes: photos with their one box, paths relative to the folder.
        sizes: width and height in pixels, by path.
        n_photos: that were looked at.
    """

    scenes: list[Boxed]
    sizes: dict[str, tuple[int, int]]
    n_photos: int


def label(
    photos: Path,
    teacher: MainBodyDetector,
    *,
    only: Sequence[str] = ("**/*",),
    sure: float = SURE,
    doubtful: float = DOUBTFUL,
) -> Labelled:
    """Label those photos of a folder that show one main body.

    Args:
        photos: the folder.
        teacher: finds what reaches its card's threshold.
        only: patterns of paths relative to the folder; a photo that fits one is looked at.
        sure: detection score that the main body must have.
        doubtful: a photo with another find of LEAST_SHARE and from this score is left out.
    Raises:
        ValueError: the scores are in no order, or the teacher does not tell its doubtful finds.
    """
    told = 1.0 if teacher.card.detection is None else teacher.card.detection.score_threshold
    if not told <= doubtful <= sure <= 1:
        raise ValueError(
            f"{teacher.card.name}: found score_threshold {told}, doubtful {doubtful} and sure {sure};"
            " wanted each at least the one before."
        )
    paths = sorted(
        {
            path
            for pattern in only
            for path in photos.glob(pattern)
            if path.suffix.lower() in ENDINGS and path.is_file()
        }
    )
    scenes, sizes = [], {}
    for path in watched(paths, "labelling photos", len(paths), worth_a_bar=100):
        name = path.relative_to(photos).as_posix()
        try:
            image = decode(path.read_bytes())
        except ImageRefused as refusal:
            print(f"{path}: left out, {refusal}", file=sys.stderr)
            continue
        found = teacher.detect(image)
        large = (found.scores >= doubtful) & (area(found.boxes) >= LEAST_SHARE * image.width * image.height)
        (bodies,) = np.nonzero(large)
        if len(bodies) == 1 and found.scores[bodies[0]] >= sure:
            x1, y1, x2, y2 = found.boxes[bodies[0]].astype(float).round(1).tolist()
            scenes.append(Boxed(name, [(x1, y1, x2, y2)], [FOREGROUND], [False]))
            sizes[name] = (image.width, image.height)
    return Labelled(scenes, sizes, len(paths))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.teacher",
        description="Label photos that show one main body, by a detector's model folder, in COCO's format.",
    )
    parser.add_argument("photos", type=Path, help="a folder, and all folders in it")
    parser.add_argument("out", type=Path, help="the file to write; its paths are relative to PHOTOS")
    parser.add_argument("--model", type=Path, required=True, help="the teacher's model folder")
    parser.add_argument(
        "--only",
        nargs="+",
        default=["**/*"],
        metavar="PATTERN",
        help="photos whose path in the folder fits one of these, such as '*Milk*/*' (all)",
    )
    parser.add_argument("--sure", type=float, default=SURE, help=f"score of a main body ({SURE})")
    parser.add_argument(
        "--doubtful", type=float, default=DOUBTFUL, help=f"score of what may be another ({DOUBTFUL})"
    )
    given = parser.parse_args(arguments)
    try:
        teacher = open_detector(load_model_folder(given.model), SessionSettings())
        found = label(given.photos, teacher, only=given.only, sure=given.sure, doubtful=given.doubtful)
        if not found.scenes:
            raise ValueError(
                f"{given.photos}: found no main body in {found.n_photos:,} photos, wanted one at least."
            )
        write_coco(given.out, found.scenes, found.sizes)
    except (OSError, RecognitionError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.out}: {len(found.scenes):,} of {found.n_photos:,} photos have one main body")
    return 0


if __name__ == "__main__":
    sys.exit(main())
