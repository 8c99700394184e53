"""ONNX files of trained networks: `write`, `load`, and the conversion of JAX's jaxprs between."""
