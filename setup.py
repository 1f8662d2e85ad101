"""Packaging; docs/dependencies.md says why each requirement is there."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "deltalm_ds/__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

REQUIREMENTS = [
    "torch>=2.11",
    "deepspeed>=0.19,<0.20",
    "numpy>=1.26,<3",
    "sentencepiece>=0.2,<0.3",
    "safetensors>=0.5,<1",
    "tensorboard>=2.16,<3",
    "mpi4py>=4.1,<5",
    "tyro>=1,<2",
    "tqdm>=4.66,<5",
]
TEST = [
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100,<7",
    "transformers>=4.51,<6",
    "megatron-core>=0.12,<0.17",
    "psutil>=5.9,<8",
    "setuptools>=70.1",
    "nvidia-cuda-cuobjdump>=13,<14",
    "nvidia-cuda-nvdisasm>=13,<14",
]
DOCS = ["matplotlib>=3.8,<4"]
DEV = [*TEST, *DOCS, "mypy>=1.15,<3", "ruff>=0.11,<0.18", "pre-commit>=4,<5", "build>=1,<2"]

setup(
    name="deltalm-ds",
    version=VERSION.group(1),
    description="DeltaLM pre-training, fine-tuning and serving on DeepSpeed",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["deltalm_ds", "deltalm_ds.*"]),
    package_data={
        "deltalm_ds.demo": ["phrases/*.json", "paragraphs/*.txt"],
        "deltalm_ds.ops.native": ["*.c", "*.h"],
    },
    install_requires=REQUIREMENTS,
    extras_require={"test": TEST, "docs": DOCS, "dev": DEV},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
