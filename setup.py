"""Metadata and dependencies; the framework itself is used from its checkout.

No package is installed: `clip` and `datasets` are also the names of other people's packages, and
ours must never stand in their way. `pip install -e .` brings the dependencies, nothing else.
"""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
ATHERIS = "atheris>=2.3; sys_platform == 'linux' and platform_machine == 'x86_64'"

setup(
    name="nemesis-prompts",
    version="0.1.0",
    description="Soft-prompt tuning of vision-language models: CoOp, CoCoOp, PLOT and Nemesis",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[],
    py_modules=[],
    install_requires=(HERE / "requirements.txt").read_text(encoding="utf-8").split(),
    extras_require={
        "dev": [
            ATHERIS,
            "beartype>=0.18",
            "datasets>=2.19",  # only to test that it still imports beside us
            "hypothesis>=6.100",
            "ipykernel>=6.29",  # runs docs/notebooks/quickstart.ipynb in the tests
            "mypy>=1.10",
            "nbclient>=0.10",
            "open_clip_torch>=2.26",
            "peft>=0.12",
            "POT>=0.9",  # the oracle of our Sinkhorn
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "timm>=1.0",
            "torchmetrics>=1.4",  # the oracle of the calibration error
            "transformers>=4.40",  # the oracle of its own layout of weights; brings huggingface_hub
            "types-PyYAML",
            "types-regex",
            "types-tabulate",
            "types-tqdm",
        ],
        # Coverage-guided fuzzing, tests/fuzz; its wheels are for Linux on x86-64 only.
        "fuzz": [ATHERIS],
        "cluster": ["ray>=2.9"],  # nemesis sweep --cluster
        "heic": ["pillow-heif>=0.18"],  # to read HEIC images
        "open_clip": ["open_clip_torch>=2.26"],
        "hub": ["huggingface_hub>=0.23"],  # --backbone openai/clip-vit-base-patch32
        "nlp": ["peft>=0.12", "transformers>=4.44"],  # examples/prefix_tuning_mrpc.py
        "timm": ["timm>=1.0"],  # --backbone timm:vit_base_patch16_224
        "mini": ["resvg-py>=0.1.5"],  # to make the bundled benchmark again
    },
)
