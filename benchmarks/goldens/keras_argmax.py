"""2x2 max pooling that remembers places, and its inverse, on both of Keras's backends used here.

TensorFlow's form is the document's (`segnet_keras_idd`): `max_pool_with_argmax` and `scatter_nd`.
"""

import keras

if keras.backend.backend() == "torch":
    import torch.nn.functional as F
else:
    import tensorflow as tf


def max_pool_with_argmax(x):
    """Values [n, H/2, W/2, c], and their flat places in each map, as the backend counts them."""
    if keras.backend.backend() == "torch":
        pooled, places = F.max_pool2d(x.permute(0, 3, 1, 2), 2, return_indices=True)
        return pooled.permute(0, 2, 3, 1), places.permute(0, 2, 3, 1)
    return tf.nn.max_pool_with_argmax(x, 2, 2, padding="VALID")


def max_unpool(x, places):
    """Values [n, h, w, c] back at their places in a map of twice the size; zeros elsewhere."""
    if keras.backend.backend() == "torch":
        x = F.max_unpool2d(x.permute(0, 3, 1, 2), places.permute(0, 3, 1, 2), 2)
        return x.permute(0, 2, 3, 1)
    _, h, w, c = x.shape
    images = tf.shape(x)[0]
    numbers = tf.reshape(tf.range(tf.cast(images, places.dtype)), (-1, 1, 1, 1))
    indices = tf.stack(
        [tf.reshape(tf.ones_like(places) * numbers, [-1]), tf.reshape(places, [-1])], axis=1
    )
    flat = tf.scatter_nd(
        indices, tf.reshape(x, [-1]), tf.cast(tf.stack([images, 4 * h * w * c]), places.dtype)
    )
    return tf.reshape(flat, (-1, 2 * h, 2 * w, c))
