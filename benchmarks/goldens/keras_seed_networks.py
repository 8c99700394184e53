"""The networks of the seed documents in Keras, for make_keras_weights.py and benchmarks.peers.

Each is written after its document's listing, with the document's layer names. Keras's torch backend
takes no "." in a name: `DOT` stands for it until the names are recorded.
"""

import keras
from keras import layers as L

from benchmarks.goldens.keras_argmax import max_pool_with_argmax, max_unpool

DOT = "-dot-"
HE = "he_normal"


@keras.saving.register_keras_serializable("segjax")
class MaxPoolWithArgmax(L.Layer):
    """2x2 max pooling; returns the values and their flat places in each map."""

    def call(self, x):
        return max_pool_with_argmax(x)

    def compute_output_spec(self, x):
        n, h, w, c = x.shape
        pooled = (n, h // 2, w // 2, c)
        return keras.KerasTensor(pooled, "float32"), keras.KerasTensor(pooled, "int64")


@keras.saving.register_keras_serializable("segjax")
class MaxUnpool(L.Layer):
    """Puts values back at their places in a map of twice the size; zeros elsewhere."""

    def call(self, x, places):
        return max_unpool(x, places)

    def compute_output_spec(self, x, places):
        n, h, w, c = x.shape
        return keras.KerasTensor((n, 2 * h, 2 * w, c), "float32")


def scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def notebook_segnet(size, classes: int, width: float = 1.0) -> keras.Model:
    """Document `segnet_keras_idd`."""

    def block(x, name, i, filters):
        x = L.Conv2D(
            scaled(filters, width),
            3,
            padding="same",
            activation="relu",
            kernel_initializer=HE,
            name=f"{name}_Conv{i}",
        )(x)
        return L.BatchNormalization(name=f"{name}_Batch{i}")(x)

    inputs = x = L.Input((*size, 3))
    places = []
    for b, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for i in range(1, count + 1):
            x = block(x, f"En_Block{b}", i, filters)
        if b == 5:
            x = L.ZeroPadding2D(((1, 0), (0, 0)), name="Zero_pad")(x)
        x, indices = MaxPoolWithArgmax()(x)
        places.append(indices)
    for b, filters, last in (
        (5, 512, 512),
        (4, 512, 256),
        (3, 256, 128),
        (2, 128, 64),
        (1, 64, 64),
    ):
        x = MaxUnpool()(x, places[b - 1])
        if b == 5:
            x = L.Cropping2D(((1, 0), (0, 0)))(x)
        count = 3 if b > 2 else 2
        for i in range(1, count + 1):
            x = block(x, f"Dec_Block{b}", i, last if i == count else filters)
    x = L.Conv2D(classes, 3, padding="same", activation="relu", name="Final_Conv")(x)
    return keras.Model(inputs, L.Activation("softmax", name="Softmax")(x), name="SEGNET")


def notebook_resnet(x, filters, strides, rates, width: float):
    """The ResNet-50 of both documents: `filters` of each stage's 1x1 and 3x3 convolutions."""

    def conv(x, features, kernel, name, activation="relu", **options):
        x = L.Conv2D(
            features,
            kernel,
            activation=activation,
            kernel_initializer=HE,
            name=name.replace(".", DOT),
            **options,
        )(x)
        return L.BatchNormalization()(x)

    x = L.Conv2D(
        scaled(64, width),
        7,
        strides=2,
        padding="same",
        activation="relu",
        kernel_initializer=HE,
        name="Block1_Conv1",
    )(x)
    x = L.BatchNormalization(name="Block1_Conv1_BN")(x)
    x = L.MaxPooling2D(3, 2, padding="same", name="Block1_Maxpool1")(x)
    for s, (features, stride, stage) in enumerate(zip(filters, strides, rates, strict=True), 2):
        features = scaled(features, width)
        for b, rate in enumerate(stage, 1):
            name = f"Block{s}.{b}_{'CONV' if b == 1 else 'ID'}_"
            y = conv(x, features, 1, name + "Conv1", strides=stride if b == 1 else 1)
            y = conv(y, features, 3, name + "Conv2", padding="same", dilation_rate=rate)
            y = conv(y, 4 * features, 1, name + "Conv3", None)
            if b == 1:
                name += "conv_previous_add"
                x = conv(x, 4 * features, 1, name, None, strides=stride)
            x = L.Activation("relu")(L.add([y, x]))
    return x


def notebook_pspnet(size, classes: int, width: float = 1.0) -> keras.Model:
    """Document `pspnet_keras_idd`; its paddings and factors are those of 240x480."""
    inputs = L.Input((*size, 3))
    rates = ((1,) * 3, (1,) * 4, (2,) * 6, (4,) * 3)
    x = notebook_resnet(inputs, (16, 32, 64, 128), (1, 2, 2, 2), rates, width)
    x = L.UpSampling2D(4, interpolation="bilinear", name="Size_Adjust_samp")(x)
    x = L.ZeroPadding2D((2, 0), name="up_Size_Adjust_pad")(x)

    def level(colour, pool):
        if pool is None:
            pool = x.shape[1:3]
            y = L.GlobalAveragePooling2D(name=f"{colour}_GL_POOL")(x)
            y = L.Reshape((1, 1, x.shape[3]))(y)
        else:
            y = L.AveragePooling2D(pool, name=f"{colour}_AVG_POOL")(x)
        y = L.Conv2D(scaled(128, width), 1, name=f"{colour}Conv1_1")(y)
        y = L.BatchNormalization()(y)
        return L.UpSampling2D(pool, interpolation="bilinear", name=f"{colour}Up_sample")(y)

    red, orange, blue, green = (
        level(*branch) for branch in (("RED", None), ("ORANGE", 2), ("BLUE", 3), ("GREEN", 6))
    )
    x = L.concatenate([x, green, blue, orange, red])
    x = L.UpSampling2D((6, 8), interpolation="bilinear", name="en_Size_Adjust_samp")(x)
    x = L.ZeroPadding2D((12, 0))(x)
    x = L.Conv2D(scaled(64, width), 5, padding="same", activation="relu", name="Conv1")(x)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(classes, 3, padding="same", activation="relu", name="Conv2")(x)
    return keras.Model(inputs, L.Activation("softmax", name="Softmax")(x))


def notebook_deeplabv3(size, classes: int, width: float = 1.0) -> keras.Model:
    """Document `deeplabv3_keras_idd`."""
    inputs = L.Input((*size, 3))
    rates = ((1,) * 3, (1,) * 4, (1,) * 6, (2, 4, 8))
    x = notebook_resnet(inputs, (64, 128, 256, 512), (1, 2, 2, 1), rates, width)

    def branch(x, kernel, name, **options):
        options |= dict(activation="relu", padding="same", name=name)
        return L.BatchNormalization()(L.Conv2D(scaled(256, width), kernel, **options)(x))

    mean = L.GlobalAveragePooling2D(name="ASPP_GL_POOL")(x)
    mean = branch(L.Reshape((1, 1, x.shape[3]))(mean), 1, "Global_Conv")
    mean = L.UpSampling2D(x.shape[1:3], interpolation="bilinear", name="upsamp")(mean)
    branches = [mean, branch(x, 1, "ASPP_Conv0_1x1")]
    for i, rate in enumerate((6, 12, 18), 1):
        branches.append(branch(x, 3, f"ASPP_Conv{i}_3x3", dilation_rate=rate))
    x = branch(L.concatenate(branches), 1, "ASPP_Out")
    x = L.UpSampling2D(16, interpolation="bilinear", name="upsampling")(x)
    x = L.Conv2D(scaled(64, width), 1, activation="relu", name="out")(x)
    x = L.Conv2D(classes, 1, activation="relu", name="output")(x)
    outputs = L.Activation("softmax", name="Softmax")(x)
    return keras.Model(inputs, outputs, name="Deeplab_V3")


def ncsu_segnet(size, classes: int, width: float = 1.0) -> keras.Model:
    """Document `segnet_ncsu_camvid_report`, channels-last, so that channels are normalised."""
    inputs = x = L.Input((*size, 3))
    for s, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3)), 1):
        for i in range(1, count + 1):
            options = dict(padding="same", activation="relu", name=f"block{s}_conv{i}")
            x = L.Conv2D(scaled(filters, width), 3, **options)(x)
        x = L.MaxPooling2D(2, name=f"block{s}_pool")(x)
    for filters in (512, 256, 128, 64):
        x = L.Conv2D(scaled(filters, width), 3)(L.ZeroPadding2D()(x))
        x = L.BatchNormalization()(x)
        if filters > 64:
            x = L.UpSampling2D(2)(x)
    x = L.Conv2D(classes, 3, padding="same")(x)
    rows = L.Reshape((x.shape[1] * x.shape[2], classes))(x)
    return keras.Model(inputs, L.Activation("softmax")(rows))
