"""Where the public datasets can be had: what each needs on disk, by the name of its class."""

from dassl.data.datasets import Source

SOURCES: dict[str, tuple[Source, ...]] = {
    "Caltech101": (
        Source("101_ObjectCategories"),
        Source("split_zhou_Caltech101.json", optional=True),
    ),
    "OxfordPets": (
        Source("images"),
        Source("split_zhou_OxfordPets.json", optional=True),
    ),
    "StanfordCars": (
        Source("cars_train"),
        Source("cars_test"),
        Source("split_zhou_StanfordCars.json", optional=True),
    ),
    "OxfordFlowers": (
        Source("jpg"),
        Source("split_zhou_OxfordFlowers.json", optional=True),
    ),
    "Food101": (
        Source("images"),
        Source("split_zhou_Food101.json", optional=True),
    ),
    "SUN397": (
        Source("SUN397"),
        Source("split_zhou_SUN397.json", optional=True),
    ),
    "DescribableTextures": (
        Source("images"),
        Source("split_zhou_DescribableTextures.json", optional=True),
    ),
    "EuroSAT": (
        Source("2750"),
        Source("split_zhou_EuroSAT.json", optional=True),
    ),
    "UCF101": (
        Source("UCF-101-midframes"),
        Source("split_zhou_UCF101.json", optional=True),
    ),
    "FGVCAircraft": (
        Source("images"),
        Source("variants.txt"),
        Source("images_variant_train.txt"),
        Source("images_variant_val.txt"),
        Source("images_variant_test.txt"),
    ),
    "ImageNet": (
        Source("images/train"),
        Source("images/val"),
    ),
    "ImageNetV2": (Source("imagenetv2-matched-frequency-format-val"),),
    "ImageNetSketch": (Source("images"),),
    "ImageNetA": (Source("imagenet-a"),),
    "ImageNetR": (Source("imagenet-r"),),
}
