"""How often each fault is provoked: a reduced count in `make test`, the full one in `make test-faults`.

All counts stand here, so that both are seen in one place. A test that takes one bears the marker `faults`, by which
`make test-faults` finds it, and tells what it saw by the fixture `figure`; docs/operating.md has the table.
"""

import os
from dataclasses import dataclass

FULL = os.environ.get("CHECKLANE_FAULTS", "reduced") == "full"


@dataclass(frozen=True)
class Count:
    """How often, or how many.

    Attributes:
        reduced: in `make test`.
        full: in `make test-faults`.
    """

    reduced: int
    full: int

    @property
    def now(self) -> int:
        """Of this run."""
        return self.full if FULL else self.reduced


# Engines killed and stopped where they are, one by one, under recognition.
ENGINE_FAULTS = Count(1, 3)
POSTGRES_RESTARTS = Count(1, 10)
# The worker that recognises, killed under 40 photos.
RECOGNITION_KILLS = Count(1, 10)
# Imports, in each of which the bulk worker is killed three times.
IMPORTS = Count(1, 10)
# A picture added and at once deleted, so that it goes while it is embedded.
HASTY_DELETIONS = Count(6, 60)
# A product or its only picture deleted, and searched for at once.
DELETIONS = Count(20, 1_000)
# A gallery of so many pictures is embedded anew while the bulk worker is killed.
REEMBEDDED = Count(225, 2_000)
REEMBEDDING_KILLS = Count(1, 10)
# Milvus killed under a re-embedding and under recognition.
MILVUS_KILLS = Count(1, 3)
# A process killed between PostgreSQL's commit and Milvus's write.
KILLS_BETWEEN_STORES = Count(5, 100)
# Pictures imported and embedded while the broker sends each message again and again.
REDELIVERED = Count(60, 300)
# To another generation and back, while four clients keep asking.
SWITCHES = Count(2, 20)
# Pictures written on a disk with a little more room each time.
FULL_DISKS = Count(2, 100)
