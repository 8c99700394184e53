"""What pyproject.toml cannot say: configs/ travels in the wheel, as segjax.configs."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["segjax*"]), "segjax.configs"],
    package_dir={"segjax.configs": "configs"},
)
