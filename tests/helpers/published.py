"""The publishers' archives of the public datasets in small, in their true layout."""

import dataclasses
import io
import tarfile
import zipfile
from urllib.parse import urlsplit

from dassl.data.datasets import Source
from datasets.sources import SOURCES
from tests.helpers.server import Server

PICTURE = b"\xff\xd8\xff a picture"
DRIVE = "/drive?id="


def tar(*names: str, mode: str = "w:gz", content: bytes = PICTURE) -> bytes:
    """A tar of files with the same content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zipped(*names: str, **files: bytes) -> bytes:
    """A zip of pictures, and of files with their content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (dict.fromkeys(names, PICTURE) | files).items():
            archive.writestr(name, content)
    return file.getvalue()


_AIRCRAFT = (
    *("images/1.jpg", "variants.txt", "families.txt"),
    *(f"images_variant_{part}.txt" for part in ("train", "val", "test", "trainval")),
)
_CALTECH = ("BACKGROUND_Google/image_0001.jpg", "accordion/image_0001.jpg")
# By the file's name in its address.
FILES = {
    "caltech-101.zip": zipped(
        "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz",
        "caltech-101/Annotations.tar",
        **{
            "caltech-101/101_ObjectCategories.tar.gz": tar(
                *(f"101_ObjectCategories/{name}" for name in _CALTECH)
            )
        },
    ),
    "images.tar.gz": tar("images/beagle_1.jpg", "images/._beagle_1.jpg"),
    "annotations.tar.gz": tar("annotations/trainval.txt", "annotations/test.txt"),
    "cars_train.tgz": tar("cars_train/00001.jpg"),
    "cars_test.tgz": tar("cars_test/00001.jpg"),
    "car_devkit.tgz": tar("devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
    "cars_test_annos_withlabels.mat": b"annotations",
    "102flowers.tgz": tar("jpg/image_00001.jpg"),
    "imagelabels.mat": b"labels",
    "food-101.tar.gz": tar("food-101/images/pizza/1.jpg", "food-101/meta/classes.txt"),
    "fgvc-aircraft-2013b.tar.gz": tar(*(f"fgvc-aircraft-2013b/data/{name}" for name in _AIRCRAFT)),
    "SUN397.tar.gz": tar("SUN397/a/abbey/sun_1.jpg", "SUN397/ClassName.txt"),
    "Partitions.zip": zipped("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
    "dtd-r1.0.1.tar.gz": tar("dtd/images/banded/1.jpg", "dtd/imdb/imdb.mat", "dtd/labels/1.txt"),
    "EuroSAT.zip": zipped("2750/Forest/Forest_1.jpg"),
    "EuroSAT_RGB.zip": zipped("EuroSAT_RGB/Forest/Forest_1.jpg"),
    "10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O": zipped("UCF-101-midframes/Archery/v_Archery_g01_c01.jpg"),
    "UCF101TrainTestSplits-RecognitionTask.zip": zipped("ucfTrainTestlist/classInd.txt"),
    "imagenetv2-matched-frequency.tar.gz": tar("imagenetv2-matched-frequency-format-val/0/1.jpeg"),
    "1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA": zipped("sketch/n01440764/sketch_0.JPEG"),
    "ImageNet-Sketch.zip": zipped("sketch/n01440764/sketch_0.JPEG"),
    "imagenet-a.tar": tar("imagenet-a/n01498041/1.jpg", "imagenet-a/README.txt", mode="w"),
    "imagenet-r.tar": tar("imagenet-r/n01443537/1.jpg", "imagenet-r/README.txt", mode="w"),
}


def publish(server: Server) -> dict[str, tuple[Source, ...]]:
    """Let a server have all files, and return the sources with its addresses."""
    return {name: tuple(_local(s, server) for s in sources) for name, sources in SOURCES.items()}


def _local(source: Source, server: Server) -> Source:
    """The source with its addresses on the server, and without the true files' checksums."""
    urls = []
    for url in source.urls:
        parts = urlsplit(url)
        if parts.scheme == "gdrive":
            number = parts.path.split("/")[0]
            server.files[DRIVE + number] = FILES.get(number, b"{}")
            urls.append(url)
        else:
            path = f"/{parts.netloc}{parts.path}"
            server.files[path] = FILES[path.split("/")[-1]]
            urls.append(server.url + path)
    return dataclasses.replace(source, urls=tuple(urls), checksum="")
