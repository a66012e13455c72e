"""Try one file of a third-party repository on our `dassl` and `clip`, in its own process.

    python -m tests.helpers.foreign_repository KIND FILE WORK_DIR

KIND is trainer, dataset or train. The repository's files are on the path, except its packages named
`dassl` or `clip`, which ours replace. CLIP's weights are random for every requested name. The
attempts are printed; an exception states the failure.
"""

import contextlib
import importlib
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
OURS = ("safeio", "clip", "dassl")
DATASET = "HarnessSquares"
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 210)}
TINY = {
    "DATASET.NAME": DATASET,
    "DATASET.NUM_SHOTS": "2",
    "DATALOADER.NUM_WORKERS": "0",
    "DATALOADER.TRAIN_X.BATCH_SIZE": "2",
    "INPUT.SIZE": "(64, 64)",
    "INPUT.TRANSFORMS": "('random_flip', 'normalize')",
    "MODEL.BACKBONE.NAME": "ViT-B/16",
    "OPTIM.NAME": "sgd",
    "OPTIM.LR": "0.002",
    "OPTIM.MAX_EPOCH": "1",
    "USE_CUDA": "False",
}


def repository_of(file: Path) -> Path:
    """The repository of a file of `trainers` or `datasets`, or of a train.py."""
    return file.parent if file.name == "train.py" else file.parent.parent


def files_of(repository: Path) -> list[tuple[str, Path]]:
    """(kind, file) of every file in a repository that can be tried, with subfolders."""
    found = [("train", path) for path in sorted(repository.rglob("train.py"))]
    for kind in ("trainer", "dataset"):
        paths = sorted(repository.rglob(f"{kind}s/*.py"))
        found += [(kind, path) for path in paths if not path.name.startswith("_")]
    return [(kind, path) for kind, path in found if "dassl" not in path.parts]


def make_data(root: Path) -> None:
    """Write eight pictures of each of three classes to <root>/squares/images/<class>."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = root / "squares" / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(8):
            pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (16, 16, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def stage(repository: Path, folder: Path) -> None:
    """Link a repository's files into a folder, with our `dassl` and `clip` among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in repository.iterdir():
        if path.name not in OURS:
            (folder / path.name).symlink_to(path.resolve())
    for name in OURS:
        (folder / name).symlink_to(ROOT / name)


def prepare(folder: Path) -> None:
    """Make a staged repository importable, give CLIP random weights, and add a tiny dataset."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
    from clip import clip
    from clip.weights import load_clip
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

    torch.manual_seed(0)
    model = load_clip("mini").model
    state = {
        name: tensor + 0.01 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, folder.parent / "random.pt")
    vars(clip)["_download"] = lambda *args, **kwargs: str(folder.parent / "random.pt")

    class HarnessSquares(DatasetBase):
        """The pictures of `make_data`."""

        def __init__(self, cfg: Any) -> None:
            images = Path(cfg.DATASET.ROOT) / "squares" / "images"
            items = [
                Datum(str(path), label, classname=folder.name)
                for label, folder in enumerate(sorted(images.iterdir()))
                for path in sorted(folder.iterdir())
            ]
            train = self.generate_fewshot_dataset(items[::2], num_shots=cfg.DATASET.NUM_SHOTS)
            super().__init__(train_x=train, val=items[1::2], test=items[1::2])

    DATASET_REGISTRY.register(HarnessSquares)


def settings(folder: Path, train_module: Any, trainer: str) -> Any:
    """The configuration of a tiny run, with the keys that the repository's train.py declares."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend = getattr(train_module, "extend_cfg", None)
    if extend is not None:
        extend(cfg)
    for name, group in cfg.TRAINER.items():
        if isinstance(group, dict) and "PREC" in group:
            cfg.merge_from_list([f"TRAINER.{name}.PREC", "fp32"])
    tiny = {"TRAINER.NAME": trainer, "OUTPUT_DIR": str(folder.parent / "out" / trainer), **TINY}
    tiny["DATASET.ROOT"] = str(folder.parent / "data")
    cfg.merge_from_list([word for pair in tiny.items() for word in pair])
    return cfg


def train_module(folder: Path) -> Any:
    """The repository's train.py as a module; None without one that can be imported alone."""
    if not (folder / "train.py").is_file():
        return None
    with contextlib.suppress(ImportError):
        return importlib.import_module("train")
    return None


def registered_by(module: str, registry: Any) -> list[str]:
    """Import a module and return the names of its classes in a registry."""
    file = importlib.import_module(module)
    return [name for name, item in registry.items() if item.__module__ == file.__name__]


def try_trainer(folder: Path, file: Path) -> None:
    """Import a file of trainers and run each of them."""
    from dassl.engine import TRAINER_REGISTRY, build_trainer

    names = registered_by(f"trainers.{file.stem}", TRAINER_REGISTRY)
    module = train_module(folder)
    for name in names:
        trainer = build_trainer(settings(folder, module, name))
        if trainer.get_model_names():
            trainer.train()
        print(f"ran {name}: {trainer.test():.1f}%")
    print(f"registered {', '.join(names) or 'no trainer'}")


def try_dataset(folder: Path, file: Path) -> None:
    """Import a file of datasets and build those whose images exist."""
    from dassl.data.datasets import DATASET_REGISTRY, build_dataset

    names = registered_by(f"datasets.{file.stem}", DATASET_REGISTRY)
    for name in names:
        cfg = settings(folder, train_module(folder), "none")
        cfg.DATASET.NAME = name
        cfg.SEED = 1
        for attempt in ("first", "second"):  # the second reads what the first has saved
            try:
                dataset = build_dataset(cfg)
                print(f"built {name}, {attempt}: {len(dataset.train_x or [])} training images")
            except FileNotFoundError as error:
                print(f"{name} needs its images: {error}")
    print(f"registered {', '.join(names) or 'no dataset'}")


def try_train(folder: Path, file: Path) -> None:
    """Import a train.py, and run it for each trainer whose keys it declares."""
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.build import learns

    module = importlib.import_module("train")
    for name, trainer in TRAINER_REGISTRY.items():
        if not getattr(trainer, "__module__", "").startswith("trainers."):
            continue
        cfg = settings(folder, module, name)
        words = ["--root", cfg.DATASET.ROOT, "--trainer", name]
        words += ["--output-dir", f"{cfg.OUTPUT_DIR}_train"]
        words += [] if learns(cfg) else ["--eval-only"]
        for group, node in cfg.TRAINER.items():
            words += [f"TRAINER.{group}.PREC", "fp32"] if "PREC" in node else []
        run_train([*words, *(word for pair in TINY.items() for word in pair)])
        print(f"ran train.py --trainer {name}")


def run_train(words: list[str]) -> None:
    """Run the staged train.py from its command line."""
    out, sys.argv = sys.stdout, ["train.py", *words]
    try:
        runpy.run_path("train.py", run_name="__main__")
    finally:
        sys.stdout = out  # from the log of that run


def main(kind: str, path: str, work: str, *words: str) -> None:
    """Try one file; with further words, run train.py with them."""
    file, folder = Path(path).resolve(), Path(work).resolve() / "stage"
    make_data(folder.parent / "data")
    stage(repository_of(file), folder)
    prepare(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their code
        if words:
            places = {name: folder.parent / name for name in ("data", "out")}
            run_train([word.format(**places) for word in words])
        else:
            {"trainer": try_trainer, "dataset": try_dataset, "train": try_train}[kind](folder, file)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main(*sys.argv[1:])
