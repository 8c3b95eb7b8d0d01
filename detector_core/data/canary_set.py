"""The canary set: fixed image files on which a new version must give the same verdicts as the live one.

It holds images whose verdicts people rely on, such as those of a demonstration, a contract or an earlier complaint. A
data set measures rates; a canary set is about each single file.
"""

from pathlib import Path
from typing import Final

import pandas as pd

from detector_core import storage
from detector_core.data import index
from detector_core.errors import BadData, BadImage
from detector_core.images import align
from detector_core.networks.artifacts import sha256_of

IN_MODELS: Final = "canary-set"
"""The folder in MODELS that is used by default."""
_FOLDER: Final = "canary"


def load(folder: str, work: Path, *, generated: bool) -> pd.DataFrame:
    """Writes the images of a canary set as networks read them.

    Args:
        folder: folder or URI with the files, in any subfolders.
        work: folder for the images; delete it after the round.
        generated: whole images are read, as of demo data; otherwise faces are cut out.

    Returns:
        One row per file: ``name`` below ``folder``, ``path`` of the image below ``work``, and its ``sha256``.

    Raises:
        BadData: there is no such folder, it has no files, or one of them cannot be read as an image or has no face.
    """
    rows = []
    for name in index.scan_unlabeled(folder).frame["path"]:
        data = storage.read_bytes(storage.join(folder, name))
        path = f"{_FOLDER}/{align.portrait_name(name)}"
        try:
            align.save_as_read(f"{_FOLDER}/{name}", data, folder=str(work), generated=generated)
        except BadImage as error:
            raise BadData(f"canary set: {storage.join(folder, name)}: {error}: replace or remove this file") from None
        rows.append({"name": name, "path": path, "sha256": sha256_of(work / path)})
    return pd.DataFrame(rows)
