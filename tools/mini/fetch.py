"""Download the pinned npm packages with the drawings and their names.

Run from the repository's root: `python -m tools.mini.fetch`.  Needs `npm`; skips packages that
are already unpacked.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tools.mini.styles import NAME_PACKAGES, STYLES, source_of


def fetch(package: str, version: str) -> None:
    """Download and unpack one npm package; the folder is moved into place once complete."""
    target = source_of(package)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        # npm checks the archive against the registry's checksum
        command = ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        shutil.move(Path(scratch) / "package", target)
    print(f"{package} {version} -> {target}")


def main() -> None:
    """Fetch every package of the table."""
    for package, version in {s.package: s.version for s in STYLES}.items():
        fetch(package, version)
    for package, version in NAME_PACKAGES.items():
        fetch(package, version)


if __name__ == "__main__":
    main()
