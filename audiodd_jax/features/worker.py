"""A process that computes features: reads a task on stdin, writes JSON lines."""

import json
import pickle
import sys

from audiodd_jax.features import extraction


def main() -> None:
    """Fills its rows of the memory-mapped features."""
    load, settings, path, indices, size = pickle.load(sys.stdin.buffer)

    def tell(**message: object) -> None:
        print(json.dumps(message), flush=True)

    done = lambda clips: tell(done=clips)
    bad = extraction.fill(load, settings, path, indices, size, done, threads=1)
    tell(bad=bad)


if __name__ == "__main__":
    main()
