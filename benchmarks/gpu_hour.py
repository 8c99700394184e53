"""Makes the most of the first GPU that it meets, a few minutes at a time; see docs/gpu_hour.md.

    python -m benchmarks.gpu_hour --budget=480 --out=DIR [--data_dir=DIR]
    python benchmarks/gpu_hour.py --budget=480 --out=DIR      the same
    python -m benchmarks.gpu_hour --miniature --out=DIR       a rehearsal on a CPU

DIR/results.json and DIR/results.md are written as the results come. Started again with the same
DIR, it goes on with what is missing or failed.
"""

import pathlib
import sys

if not __package__:  # run as a file, whose folder Python then searches in place of the checkout
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from benchmarks.gpu.hour import main

if __name__ == "__main__":
    main()
