"""Keras' side, on TensorFlow: the notebooks' networks, and SegNet.

Training is `train_on_batch` of a compiled model, inference a `tf.function`; with `compiled` both
are compiled by XLA, which is Keras' own choice ("auto") where every layer supports it.
"""

import os
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers as L

from benchmarks.goldens import keras_seed_networks as seeds
from benchmarks.peers import work
from benchmarks.peers.work import Request, Work


def segnet(size, classes: int) -> keras.Model:
    """`segjax.models.SegNet`, for sizes that halve five times without a remainder."""

    def block(x, features):
        x = L.Conv2D(features, 3, padding="same")(x)
        return L.ReLU()(L.BatchNormalization()(x))

    inputs = x = L.Input((*size, 3))
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    places = []
    for stage in stages:
        for features in stage:
            x = block(x, features)
        x, indices = seeds.MaxPoolWithArgmax()(x)
        places.append(indices)
    for s in range(len(stages) - 1, -1, -1):
        x = seeds.MaxUnpool()(x, places[s])
        for features in (*stages[s][1:], stages[s - 1][-1]) if s else stages[0][1:]:
            x = block(x, features)
    x = L.Conv2D(classes, 3, padding="same")(x)
    return keras.Model(inputs, L.Activation("softmax", dtype="float32")(x))


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "segnet": segnet,
    "notebook_segnet": seeds.notebook_segnet,
    "notebook_pspnet": seeds.notebook_pspnet,
    "notebook_deeplabv3": seeds.notebook_deeplabv3,
}


def make(request: Request) -> Work:
    """The row's network of Keras."""
    row = request.row
    tf.config.threading.set_intra_op_parallelism_threads(request.cores)
    tf.config.threading.set_inter_op_parallelism_threads(request.cores)
    gpus = tf.config.list_physical_devices("GPU")
    if request.device == "gpu":
        if not gpus:
            raise RuntimeError("TensorFlow finds no GPU")
        tf.config.experimental.set_memory_growth(gpus[0], True)
    if request.dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    model = NETWORKS[row.peers["keras"]](tuple(row.size), row.classes)
    images, labels = work.batch(row)
    x = tf.constant(work.normalised(images))
    y = tf.constant(labels.astype("int32"))
    make_run = _training if request.work == "train" else _inference

    def peak() -> int:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]

    return Work(
        make_run(model, x, y, request),
        sum(int(tf.size(v)) for v in model.trainable_variables),
        (row.images, *model.output_shape[1:]),
        about={
            "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            "threads": f"TensorFlow: {request.cores} within an operation, {request.cores} between",
            "device": gpus[0].name if request.device == "gpu" else "cpu",
        },
        peak=peak if request.device == "gpu" else None,
    )


def _training(model: keras.Model, x, y, request: Request) -> Callable[[int], float]:
    if request.row.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(**work.SGD)
    else:
        optimizer = keras.optimizers.Adam(**work.ADAM)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(optimizer, loss, jit_compile=request.compiled)

    def run(steps: int) -> float:
        for _ in range(steps):
            value = model.train_on_batch(x, y)
        return float(value)

    return run


def _inference(model: keras.Model, x, y, request: Request) -> Callable[[int], float]:
    @tf.function(jit_compile=request.compiled)
    def predict(x):
        return tf.argmax(model(x, training=False), axis=-1, output_type=tf.int32)

    def run(steps: int) -> float:
        for _ in range(steps):
            labels = predict(x)
        return float((labels.numpy() == 0).sum())

    return run
