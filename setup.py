"""What pyproject.toml cannot say: configs/ and its tables travel in the wheel (segjax.configs)."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["segjax*"]), "segjax.configs"],
    package_dir={"segjax.configs": "configs"},
    package_data={"segjax.configs": ["tables/**/*.yaml"]},
)
