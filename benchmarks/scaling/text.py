"""The prose of docs/scaling.md, whose numbers `scaling_page` fills in, and how it is set."""

import math
import textwrap
from collections.abc import Iterable, Sequence

INTRODUCTION = """
# 1 to 256 accelerators, estimated

Nothing here was measured on an accelerator. FLOPs are counted from the steps, memory and bytes from
programs that were compiled for the accelerators; speeds are the vendors'; the rest are assumptions,
written out below. `python -m benchmarks.scaling.estimate > docs/scaling.md` writes the page.
"""

SUMMARY = """
In short ({names}; {images} images each):

- Weak scaling keeps {h100_8} of the speed on 8 H100s, {h100_64} on 64 and {h100_256} on 256; on 256
TPU v5e {tpu_256}.
- Gradients are not what costs: {gradients} ms on 256 H100s, and they can hide behind the backward
pass. The statistics of batch normalisation cannot: {statistics} ms, all of it latency. The more
images on each accelerator, the less they count.
- A batch of {batch}, the papers', runs on H100s at best {strong} as fast as on one.
- 8 H100s want {decoded} cores to read decoded samples, at {gigabytes} GB/s, or {encoded} to decode
PNG: with less, the input is the limit long before the links are.
"""

COUNTED = """
FLOPs are XLA's cost analysis of the lowered training step (augmentation, loss and update included;
dtype bfloat16), per image. XLA leaves out products with the padding's zeros, and so does our
`atrous_conv` at large rates: hence less than three forward passes. Gradients are float32.
Statistics are what one step sums for batch normalisation, which is over the whole batch whatever
the number of accelerators. Traffic and kept maps by passes are what a program must move and keep
that stores each map once: two maps, and the passes below, per convolution.

The count by layers against what torchvision publishes for its networks at 520x520 (billions of
multiplications of a forward pass, https://docs.pytorch.org/vision/stable/models.html):
"""

COMPILED = """
Steps of {images} images in bfloat16, compiled without the accelerators: `python -m
benchmarks.scaling.compiled`, on the newest JAX. Bytes are what kernels read and write, the
update of the parameters apart; memory is what XLA lays out. These bytes are used below; where
nothing is compiled or the step does not fit, those by passes.
"""

ASSUMPTIONS = """
## What is assumed

- **Computation** takes `FLOPs / peak + bytes / memory bandwidth`, over an efficiency between {slow}
and {fast}. The bytes are the compiled program's, above. Where there is none they are, per
convolution, {input_passes} passes over its input and {output_passes} over its output (convolution,
statistics, normalisation with activation, and their gradients, each fused into one kernel), in
bfloat16, and {logit_passes} passes over the full-size float32 logits; per step, five over the
parameters. That memory term is why these networks reach {best_share} of an H100's peak at most.
- **An all-reduce** of B bytes over n accelerators takes `2 (n-1)/n B / bandwidth + 2 (n-1) latency`
around a ring. With nodes of 8 GPUs: reduce-scatter over NVLink, all-reduce of an eighth over each
GPU's own network card, all-gather; or up and down a tree, with fewer hops, if that is faster. TPUs:
along all axes of the torus at once, one way a link, without wrap-around.
- **Overlap.** At best gradients are summed behind the backward pass (two thirds of the
computation), at worst after it. Statistics and halos are waited for either way: the next layer
needs them.
- **Statistics**: two sums per normalisation, one forward and one backward, each of a few KB: pure
latency. A slow test counts them in the program compiled for two CPU devices.
- **Not counted**: launching kernels, stragglers, congestion, the input (below), evaluation,
checkpoints, and that kernels are less efficient on few rows. All of these make it slower.
- float32 instead of bfloat16 halves the peak of H100 and A100 (TF32 products) and doubles the
traffic.
"""

LINKS = """
GPU links are what NCCL reaches: of 450 GB/s of NVLink 370 (its maintainer's number), of 400 Gbit/s
46 GB/s; A100's 235 of 300 GB/s is NCCL's own limit, and its network is taken in H100's proportion.
Latencies are NCCL's model of its tree in the LL128 protocol: 38 us over two nodes of 8, where 46
were measured on H20s (https://github.com/NVIDIA/nccl/issues/1244). In its LL protocol sums this
small take 12 us rather than 21 on one node, 68 rather than 106 on 32. A TPU's hop takes 1 us;
collectives start in 4.4 us, which is NCCL's number and only assumed for TPUs.
"""

SPEED = """
Why {slow} to {fast}: the same sum for ResNet-50 at 224x224, against NVIDIA's training speed in
mixed precision: {reached} ({address}). As a share of peak, DeepLabv3+ in FP16 sustained 999 PFLOP/s
on 27,360 V100s, 0.29 of their 125 TFLOP/s each
(https://research.nvidia.com/publication/2018-11_exascale-deep-learning-climate-analytics). PSPNet's
maps hardly fit a TPU v5e with {images} images: `train.remat`, or fewer.
"""

WEAK = """
{images} images on each accelerator: `train.batch_size={images}*n`, `parallel.data=n`. Step time
from (faster computation, overlap) to (slower, none); efficiency, images a second over n times those
of one, from (faster, no overlap) to (slower, overlap): a faster computation hides less. At 256 the
batch is {largest:,}: what that does to the result is another question, and the papers' recipes do
not answer it.
"""

STRONG = """
A batch of {batch}, as the papers' (SegNet's 12 is taken as {batch}), and how many times as fast as
on one accelerator. At {batch} each has one image; beyond, the rows of an image are shared:
`parallel.space=n/{batch}`. The rows of `data.image_size` must then be a multiple of it (480 for
the crop of 473, 528 for 513). Halos of an image at `parallel.space=2`, as one accelerator
receives them in a step, over an H100's NVLink: {halos}. Deep maps have few rows (33 at output
stride 16), and the accelerator with the most decides. Beyond {batch} every number is optimistic:
kernels get too small to fill an accelerator.
"""

INPUT = """
What the hosts must read, decode and send, at the faster computation with overlap, against what our
loader makes in a second on one core (README: images of 360x480, 2 cores of an AMD EPYC): {decoded}
prepared and decoded, {encoded} prepared and encoded; here scaled by pixels and, unmeasured,
linearly by cores. A DGX H100 has 112 cores for 8 GPUs. Decoded samples need few cores and a fast
disk; the last column is what it must deliver, unless `data.cache_mb` or `data.on_device` hold them.
"""

CHECK = """
## How to check it on your cluster

Without a data set and without the loader, so that the step alone counts (`streets` draws its own
scenes, which stay on the device):

    python launch.py --config=configs/pspnet.py:paper --config.model.encoder=resnet101 \\
      --config.dtype=bfloat16 --config.data.name=streets --config.data.train_images=256 \\
      --config.data.eval_images=8 --config.data.on_device=True --config.parallel.data=8 \\
      --config.train.batch_size=64 --config.train.steps=60 --config.train.eval_every=60 \\
      --profile=40:10

The progress bar shows images/s: compare `parallel.data` = 1, 2, 4, 8 with a `train.batch_size` of 8
times that; images/s over n times those of one are the weak efficiency. `--profile` writes steps 40
to 49 for `tensorboard --logdir WORKDIR/profile`: the time of all-reduces that no kernel runs beside
is the step's exposed communication, and the short ones before each normalisation are the
statistics. `--mode=plan --target=h100x8` gives the compiled step's memory, bytes and messages (see
accelerators.md), `--mode=benchmark` the
loader's rate on your files, and nccl-tests' `all_reduce_perf -b 8 -e 512M -f 2` the links: bus
bandwidth at the gradients' size, latency at 8 KB. Put those numbers into
`benchmarks/scaling/links.py` and write the page anew. If gradients do not overlap on GPUs, see
https://docs.jax.dev/en/latest/gpu_performance_tips.html: the latency hiding scheduler, and the
thresholds up to which XLA merges sums.
"""


def wrapped(part: str) -> str:
    """Prose in lines of 100; tables, headings and commands as they are."""
    return "\n\n".join(map(_wrapped_block, part.split("\n\n")))


def _wrapped_block(block: str) -> str:
    if block.startswith(("|", "#", "    ")):
        return block
    points = block.removeprefix("- ").split("\n- ") if block.startswith("- ") else [block]
    lead = "- " if block.startswith("- ") else ""
    lines = (
        textwrap.fill(
            lead + point,
            100,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for point in points
    )
    return "\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


def share(efficiency: float) -> str:
    """Two digits, rounded down: only what is all of it is 1."""
    return f"{math.floor(efficiency * 100 + 1e-9) / 100:.2f}"


def span(values: Iterable[str | int]) -> str:
    """The smallest "to" the largest of numbers or their texts."""
    values = sorted(map(str, values), key=float)
    return f"{values[0]} to {values[-1]}"
