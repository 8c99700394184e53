#!/usr/bin/env bash
# Makes the package that a machine with a GPU and without a network needs beside a checkout, for
# benchmarks/gpu_hour.py; see docs/gpu_hour.md.
#
#   bash benchmarks/gpu_pack.sh OUT [--data-camvid=DIR] [--data-idd_lite=DIR] [--idd-size=96x160]
#       [--limit=55] [--python=python]
#
# OUT: a new folder that git ignores: the data sets are for research and not ours to give away.
# --limit: MiB of the package. 64 may travel there, and the checkout has the rest.
# --python: one that has segjax's requirements, to make data sets and weights smaller.
set -euo pipefail

die() { echo "gpu_pack.sh: $*" >&2; exit 2; }

out='' camvid='' idd='' idd_size=96x160 limit=55 python=python
for word in "$@"; do
  case "$word" in
    --data-camvid=*) camvid=$(realpath "${word#*=}") ;;
    --data-idd_lite=*) idd=$(realpath "${word#*=}") ;;
    --idd-size=*) idd_size=${word#*=} ;;
    --limit=*) limit=${word#*=} ;;
    --python=*) python=${word#*=} ;;
    -*) die "$word is unknown; see the first lines of this file" ;;
    *) out=$word ;;
  esac
done
[ -n "$out" ] || die "give a folder to write"
[ ! -e "$out" ] || die "$out exists; give a new folder"
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.."
if git -C "$out" rev-parse >/dev/null 2>&1 && ! git -C "$out" check-ignore -q "$out"; then
  die "$out is in a git checkout that does not ignore it; use .gpu and a line .gpu/ in .git/info/exclude"
fi

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
kib() { du -sk "$1" | cut -f1; }

# Moves a part into the package if it fits. Called in the order of worth: a training run cannot do
# without the first, and the last are the first that are left out.
add() {
  local size total
  size=$(kib "$made/$1") total=$(kib "$out")
  if [ $((size + total)) -le $((limit * 1024)) ]; then
    mkdir -p "$out/$(dirname "$1")"
    mv "$made/$1" "$out/$1"
    echo "packed    $1: $((size / 1024)) MiB, $(((size + total) / 1024)) of $limit"
  else
    echo "LEFT OUT  $1: $((size / 1024)) MiB, of which $((limit - total / 1024)) are free"
  fi
}

# Wheels of Python 3.12 on Linux. Without their needs, which would be all of JAX and torch again.
wheels=$made/wheels
mkdir "$wheels"
platforms=(--python-version 3.12 --implementation cp --only-binary=:all:)
for tag in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${tag}_x86_64"); done
for tag in 2014 2010 1; do platforms+=(--platform "manylinux${tag}_x86_64"); done
quiet=(-q --disable-pip-version-check --no-deps)
"$python" -m pip wheel "${quiet[@]}" -w "$wheels" promise  # it has no wheel, and is pure Python
"$python" -m pip download "${quiet[@]}" "${platforms[@]}" -d "$wheels" --find-links "$wheels" \
  -c requirements.txt -r benchmarks/gpu/wheels.txt
add wheels
cp benchmarks/gpu/run_gpu_hour.sh "$out/"

if [ -n "$camvid" ]; then
  "$python" -m benchmarks.gpu.pack jpeg "$camvid" "$made/data/camvid"
  add data/camvid
fi
if [ -n "$idd" ]; then
  JAX_PLATFORMS=cpu "$python" launch.py --mode=prepare --config=configs/pspnet.py:idd_lite \
    --config.data.root="$idd" --format=jpeg --size="$idd_size" --splits=train,val \
    --output="$made/data" >/dev/null
  add data/idd_lite
fi
JAX_PLATFORMS=cpu "$python" -m benchmarks.gpu.pack vgg16 "$made/vgg16.safetensors" >/dev/null
add vgg16.safetensors

du -sh "$out"
