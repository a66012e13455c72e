"""What a dataset needs on disk, and where each part can be had."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One file or folder that has to be in a dataset's folder.

    Attributes:
        path: where it stands, relative to the dataset's folder.
        urls: where it can be had, tried in turn; `gdrive:<id>` is a file of Google Drive.
        unpack: the folder, relative to the dataset's, into which the downloaded archive is
            extracted so that `path` appears; None if the downloaded file is `path` itself.
        checksum: `sha256:<hex>` or `md5:<hex>` of the downloaded file, where it is published.
        size: of the downloaded file, in bytes, where it is published.
        instructions: for people, where no address works without them.
        optional: the dataset can do without it.
    """

    path: str
    urls: tuple[str, ...] = ()
    unpack: str | None = None
    checksum: str = ""
    size: int | None = None
    instructions: str = ""
    optional: bool = False
