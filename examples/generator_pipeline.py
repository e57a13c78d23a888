"""A generator pipeline: the run lasts from the first item that is asked for until the generator ends or is closed.

python examples/generator_pipeline.py 100
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator

from apimall import client, generate

from creditguard import current_run, guard


@guard("posters", budget=60)
def posters(titles: Iterable[str]) -> Iterator[tuple[str, int]]:
    with client() as api:
        for title in titles:
            used = generate(api, title)
            current_run().record(used)
            yield title, used


if __name__ == "__main__":
    titles = (f"poster {number}" for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
    # The consumer stops after three: the generator is closed, and its run is reported there and then.
    for title, used in itertools.islice(posters(titles), 3):
        print(title, used)
