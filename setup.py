"""What pyproject.toml cannot say: the package holds the shipped detectors and the paper's tables, which lie in data/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["oscillab*"]), "oscillab.shipped"],
    package_dir={"oscillab.shipped": "data"},
    package_data={"": ["*.c", "*.pyi", "py.typed"], "oscillab.shipped": ["*.pt", "paper/*.csv"]},
)
