"""Table of drawing styles: package, pinned version, licence, credit and role.

Roles separate pretraining from evaluation.  The small CLIP is pretrained on `train` styles; the
drawings of `task` styles are bundled and never used for pretraining.  Share-alike sets must not
enter the weights, so they are always `task` styles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WORK = Path("build/mini")
SIZE = 72  # edge of a rendered drawing; scenes of 64 px show it at 24 to 62 px

Kind = Literal["iconify", "openmoji", "webp"]
Role = Literal["train", "task"]


@dataclass(frozen=True)
class Style:
    """One set of drawings by one design team.

    Attributes:
        name: Folder name and `TARGET_DOMAINS` entry.
        package: npm package.
        version: Pinned version of the package.
        licence: SPDX identifier.
        credit: Author and URL of the originals.
        role: `train` (pretraining) or `task` (bundled, held out of the pretraining).
        kind: File layout of the package.
        variants: Maximum drawings per concept; icon sets have outlined, filled, ... variants.
    """

    name: str
    package: str
    version: str
    licence: str
    credit: str
    role: Role = "train"
    kind: Kind = "iconify"
    variants: int = 1

    @property
    def source(self) -> Path:
        """Folder of the unpacked package."""
        return source_of(self.package)

    @property
    def share_alike(self) -> bool:
        """Whether derived works must have the same licence."""
        return "-SA-" in self.licence


def source_of(package: str) -> Path:
    """Return the folder to which `fetch.py` unpacks an npm package."""
    return WORK / "packages" / package.replace("@", "").replace("/", "-")


NAME_PACKAGES = {"emojibase-data": "17.0.0", "emojilib": "4.0.3"}  # MIT: names, groups, keywords

_GOOGLE = "Google, https://github.com/googlefonts/noto-emoji"
_MICROSOFT = "Microsoft, https://github.com/microsoft/fluentui-emoji"
_EMOJITWO = "Emoji One 2 / EmojiTwo, https://github.com/EmojiTwo/emojitwo"
_OPENMOJI = "OpenMoji, https://openmoji.org"

STYLES: tuple[Style, ...] = (
    # task styles, not used for pretraining
    Style("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0", _GOOGLE, "task"),
    Style("openmoji", "openmoji", "17.0.0", "CC-BY-SA-4.0", _OPENMOJI, "task", "openmoji"),
    Style("openmoji-black", "openmoji", "17.0.0", "CC-BY-SA-4.0", _OPENMOJI, "task", "openmoji"),
    Style(
        "emojione-v1", "@iconify-json/emojione-v1", "1.2.3", "CC-BY-SA-4.0",
        "Emoji One 1, https://github.com/joypixels/emojione-legacy", "task",
    ),
    Style(
        "fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0",
        "Mozilla, https://github.com/mozilla/fxemoji", "task",
    ),
    # emoji designs for pretraining
    Style("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", _GOOGLE),
    Style(
        "twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0",
        "Twitter and jdecked, https://github.com/jdecked/twemoji",
    ),
    Style("fluent", "@iconify-json/fluent-emoji", "1.2.7", "MIT", _MICROSOFT),
    Style("fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", _MICROSOFT),
    Style("fluent-mono", "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT", _MICROSOFT),
    Style("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", _MICROSOFT, kind="webp"),
    Style("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", _EMOJITWO),
    Style("emojione-mono", "@iconify-json/emojione-monotone", "1.2.1", "CC-BY-4.0", _EMOJITWO),
    Style(
        "streamline", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0",
        "Streamline, https://github.com/webalys-hq/streamline-vectors",
    ),
    # icon sets: only icons with the name of an emoji
    Style(
        "mdi", "@iconify-json/mdi", "1.2.3", "Apache-2.0",
        "Pictogrammers, https://github.com/Templarian/MaterialDesign", variants=2,
    ),
    Style(
        "game-icons", "@iconify-json/game-icons", "1.2.4", "CC-BY-3.0",
        "GameIcons, https://github.com/game-icons/icons",
    ),
    Style(
        "icon-park", "@iconify-json/icon-park", "1.2.4", "Apache-2.0",
        "ByteDance, https://github.com/bytedance/IconPark",
    ),
    Style(
        "phosphor", "@iconify-json/ph", "1.2.2", "MIT",
        "Phosphor Icons, https://github.com/phosphor-icons/core", variants=2,
    ),
    Style(
        "tabler", "@iconify-json/tabler", "1.2.41", "MIT",
        "Pawel Kuna, https://github.com/tabler/tabler-icons", variants=2,
    ),
    Style(
        "lucide", "@iconify-json/lucide", "1.2.137", "ISC",
        "Lucide Contributors, https://github.com/lucide-icons/lucide",
    ),
    Style(
        "fontawesome", "@iconify-json/fa7-solid", "1.2.5", "CC-BY-4.0",
        "Dave Gandy, https://github.com/FortAwesome/Font-Awesome",
    ),
    Style(
        "fluent-icons", "@iconify-json/fluent-color", "1.2.21", "MIT",
        "Microsoft, https://github.com/microsoft/fluentui-system-icons",
    ),
    Style(
        "flat-color", "@iconify-json/flat-color-icons", "1.2.3", "MIT",
        "Icons8, https://github.com/icons8/flat-color-icons",
    ),
    Style(
        "streamline-color", "@iconify-json/streamline-ultimate-color", "1.2.2", "CC-BY-4.0",
        "Streamline, https://github.com/webalys-hq/streamline-vectors",
    ),
)  # fmt: skip
