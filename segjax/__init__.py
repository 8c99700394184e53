"""segjax: semantic segmentation in JAX and Flax."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """`segjax.load_exported`, imported on first use: importing segjax loads nothing."""
    if name == "load_exported":
        from segjax.export.load import load_exported

        return load_exported
    raise AttributeError(f"module 'segjax' has no attribute {name!r}")
