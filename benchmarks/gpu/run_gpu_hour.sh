#!/usr/bin/env bash
# Runs benchmarks/gpu_hour.py with the wheels and the data beside this file. From a checkout's root:
#
#   bash PACKAGE/run_gpu_hour.sh --budget=480 --out=DIR [options of gpu_hour.py]
#
# PYTHON: the interpreter that has jax, flax, optax, orbax and torch; python3 by default.
# SITE: where the wheels go. Not a new environment: an interpreter that is itself one's would not
# hand its packages on. And not beside those that are there, which stay as they are.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
PYTHON=${PYTHON:-python3}
SITE=${SITE:-${TMPDIR:-/tmp}/segjax_site}

[ -f benchmarks/gpu_hour.py ] || { echo "start this in the root of a checkout" >&2; exit 2; }
if [ ! -f "$SITE/.complete" ]; then
  "$PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
    --no-cache-dir --upgrade --target "$SITE" "$here"/wheels/*.whl
  touch "$SITE/.complete"
fi
export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
# A package that is missing is named now, rather than by each part.
"$PYTHON" - requirements.txt <<'END'
import importlib.metadata, re, sys
lines = (line.split("#")[0].strip() for line in open(sys.argv[1]))
missing = []
for line in filter(None, lines):
    name = re.match(r"[\w.-]+", line)[0]
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(name)
if missing:
    print("missing here, add them to benchmarks/gpu/wheels.txt:", ", ".join(missing))
END
exec "$PYTHON" benchmarks/gpu_hour.py --data_dir="$here/data" \
  --work="${TMPDIR:-/tmp}/segjax_gpu_hour" "$@"
