"""Files that the public datasets need, and their download addresses, by name of the dataset.

The paths are those of CoOp's DATASETS.md, the addresses those of the publishers and of well-known
mirrors. The tests have no network access, so they do not open these addresses. The checksums are
those of torchvision's dataset classes; a file without one is only checked for completeness.

Split files come first, since they replace the annotations that a split would be made from.
"""

from dassl.data.datasets import Source

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_AIRCRAFT = (f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",)
_CARS = "http://ai.stanford.edu/~jkrause"
_SUN = "http://vision.princeton.edu/projects/2010/SUN"
_PARTITIONS = (f"{_SUN}/download/Partitions.zip",)
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_HUGGING_FACE = "https://huggingface.co/datasets"
_EUROSAT_MD5 = "#md5=c8fa014336c82ac7804f0398fcb19387"
_IMAGENET = (
    "ImageNet needs an account: sign in at https://image-net.org, download the ILSVRC2012 files "
    "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into "
    "{folder}/images, and let torchvision check, unpack and sort them: "
    'python -c "from torchvision.datasets import ImageNet; '
    "[ImageNet('{folder}/images', part) for part in ('train', 'val')]\""
)
_DMLAB = (
    "DMLab is published as TFRecords, which TensorFlow reads: in an environment with "
    'tensorflow-datasets and Pillow, write its frames with python -c "import pathlib, '
    "tensorflow_datasets as tfds; from PIL import Image; "
    "[(f := pathlib.Path('{folder}', part.replace('validation', 'val'), str(e['label']), "
    "f'{i:05d}.png'), f.parent.mkdir(parents=True, exist_ok=True), "
    "Image.fromarray(e['image']).save(f)) for part in ('train', 'validation', 'test') for i, e in "
    "enumerate(tfds.as_numpy(tfds.load('dmlab', split=part)))]\""
)


def _split(dataset: str, drive: str) -> Source:
    return Source(f"split_zhou_{dataset}.json", (f"gdrive:{drive}",), optional=True)


def _annotation(
    dataset: str, path: str, *urls: str, unpack: str = "", checksum: str = ""
) -> Source:
    """Return a source that is only needed to create the split if there is no split file."""
    names = (unpack,) if unpack else ()
    split = f"split_zhou_{dataset}.json"
    return Source(path, urls, names, checksum, optional=True, unless=split)


def _variant(path: str, *urls: str, name: str) -> tuple[Source, ...]:
    return (Source(path, urls, (name,)),)


def _folder(path: str, url: str, checksum: str = "") -> Source:
    """Return a folder that has the same name in the archive."""
    return Source(path, (url,), (path,), checksum)


SOURCES: dict[str, tuple[Source, ...]] = {
    "Caltech101": (
        _split("Caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
        Source(
            "101_ObjectCategories",
            ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
            ("101_ObjectCategories.tar.gz/101_ObjectCategories",),
            "md5:3138e1922a9193bfa496528edbbc45d0",
        ),
    ),
    "OxfordPets": (
        _split("OxfordPets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        _folder(
            "images", f"{_VGG}/pets/data/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"
        ),
        _annotation(
            "OxfordPets",
            "annotations",
            f"{_VGG}/pets/data/annotations.tar.gz",
            unpack="annotations",
            checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
        ),
    ),
    "StanfordCars": (
        _split("StanfordCars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
        _folder("cars_train", f"{_CARS}/car196/cars_train.tgz"),
        _folder("cars_test", f"{_CARS}/car196/cars_test.tgz"),
        _annotation("StanfordCars", "devkit", f"{_CARS}/cars/car_devkit.tgz", unpack="devkit"),
        _annotation(
            "StanfordCars",
            "cars_test_annos_withlabels.mat",
            f"{_CARS}/car196/cars_test_annos_withlabels.mat",
        ),
    ),
    "OxfordFlowers": (
        _split("OxfordFlowers", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        _folder(
            "jpg", f"{_VGG}/flowers/102/102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa"
        ),
        _annotation(
            "OxfordFlowers",
            "imagelabels.mat",
            f"{_VGG}/flowers/102/imagelabels.mat",
            checksum="md5:e0620be6f572b9609742df49c70aed4d",
        ),
        _annotation(
            "OxfordFlowers", "cat_to_name.json", "gdrive:1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"
        ),
    ),
    "Food101": (
        _split("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        _folder(
            "images",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "md5:85eeb15f3717b99a5da872d97d918f87",
        ),
    ),
    "FGVCAircraft": tuple(
        Source(path, _AIRCRAFT, (path,))
        for path in (
            *("images", "variants.txt", "images_variant_train.txt"),
            *("images_variant_val.txt", "images_variant_test.txt"),
        )
    ),
    "SUN397": (
        _split("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
        _folder("SUN397", f"{_SUN}/SUN397.tar.gz", "md5:8ca2778205c41d23104230ba66911c7a"),
        *(
            _annotation("SUN397", path, *_PARTITIONS, unpack=path)
            for path in ("ClassName.txt", "Training_01.txt", "Testing_01.txt")
        ),
    ),
    "DescribableTextures": (
        _split("DescribableTextures", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
        _folder(
            "images",
            f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
        ),
    ),
    "EuroSAT": (
        _split("EuroSAT", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        Source(
            "2750",
            (
                f"http://madm.dfki.de/files/sentinel/EuroSAT.zip{_EUROSAT_MD5}",
                f"{_HUGGING_FACE}/torchgeo/eurosat/resolve/"
                f"c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip{_EUROSAT_MD5}",
                "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
            ),
            ("2750", "EuroSAT_RGB"),
        ),
    ),
    "UCF101": (
        _split("UCF101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
        _folder(
            "UCF-101-midframes", "gdrive:10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/UCF-101-midframes.zip"
        ),
        _annotation(
            "UCF101",
            "ucfTrainTestlist",
            "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            unpack="ucfTrainTestlist",
        ),
    ),
    # The class names are bundled; CoOp's classnames.txt is 1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF.
    "ImageNet": (
        Source("images/train", instructions=_IMAGENET),
        Source("images/val", instructions=_IMAGENET),
    ),
    "DMLab": tuple(Source(part, instructions=_DMLAB) for part in ("train", "val", "test")),
    "ImageNetV2": _variant(
        "imagenetv2-matched-frequency-format-val",
        f"{_HUGGING_FACE}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
        "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
        name="imagenetv2-matched-frequency-format-val",
    ),
    "ImageNetSketch": _variant(
        "images",
        "gdrive:1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA/ImageNet-Sketch.zip",
        f"{_HUGGING_FACE}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip",
        name="sketch",
    ),
    "ImageNetA": (_folder("imagenet-a", f"{_HENDRYCKS}/imagenet-a.tar"),),
    "ImageNetR": (_folder("imagenet-r", f"{_HENDRYCKS}/imagenet-r.tar"),),
}
