"""Fuzzing that follows the code: `python -m tests.faults.guided READER SECONDS FOLDER`.

atheris (`pip install atheris`) looks at which lines of segjax an input reaches, and goes on from
those that reach new ones. READER is a name that the tests of fuzzing have, such as "JPEG image";
without one they are listed. Inputs that reach new lines are kept in FOLDER, and the next run starts
from them; one that a reader does not bear ends the run and lies there as `crash-HASH`.
"""

import os
import pathlib
import sys
import tempfile

import atheris

# The limit of the tests: an image of 500 megapixels may take as long as it takes.
os.environ["SEGJAX_MAX_MEGAPIXELS"] = "4"
with atheris.instrument_imports(include=["segjax"]):
    from tests.faults.fuzzing import bear
    from tests.faults.test_fuzz_data import CASES, content
    from tests.faults.test_fuzz_weights import KINDS


def main(name: str, seconds: str, folder: str) -> None:
    kept, place = pathlib.Path(folder), pathlib.Path(tempfile.mkdtemp())
    kept.mkdir(parents=True, exist_ok=True)
    if name in CASES:
        case = CASES[name]
        path, read, seeds = place / case.name, case.read, [content(seed) for seed in case.seeds]
    else:
        file, intact, _, read = KINDS[name]
        path, seeds = place / file, intact(place)
    for number, seed in enumerate(seeds):
        (kept / f"seed{number}").write_bytes(seed)
        path.write_bytes(seed)
        read(path)  # which imports what it needs
    # Its own alarm would take the place of the watch's.
    options = [f"-max_total_time={seconds}", "-timeout=0", f"-artifact_prefix={kept}/"]
    atheris.Setup([sys.argv[0], *options, str(kept)], lambda data: bear(read, path, data))
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"{__doc__}\nreaders: {', '.join([*CASES, *KINDS])}")
    main(*sys.argv[1:])
