"""Where the public datasets can be had: what each needs on disk, by the name of its class."""

from dassl.data.datasets import Source

SOURCES: dict[str, tuple[Source, ...]] = {
    "Caltech101": (
        Source("101_ObjectCategories"),
        Source(
            "split_zhou_Caltech101.json",
            urls=("gdrive:1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",),
            optional=True,
        ),
    ),
}
