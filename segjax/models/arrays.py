"""Input and output of every network: `model.apply(variables, images, train=False)["logits"]`."""

from jaxtyping import Array, Float

# Normalised images, any H and W.
Images = Float[Array, "n H W i"]
# "logits", and "aux" in networks with an auxiliary head: float32 scores of K classes at the images'
# own size, before softmax.
Outputs = dict[str, Float[Array, "n H W k"]]
