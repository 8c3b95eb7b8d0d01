"""From the bytes of an image or clip to pixels, and from pixels to the input of a network."""

import os

# Without it, importing albumentations (in augment) asks pypi.org whether there is a newer version, and waits for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
