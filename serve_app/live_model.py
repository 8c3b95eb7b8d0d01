"""A replica's model: loaded once, and changed in place when another becomes the live one.

Every replica looks at ``MODELS/live`` by itself, so a promotion and a roll-back reach a service however it was
deployed, without a restart and without a request that fails: the old model answers until the new one has. A version
that cannot be loaded is reported once, and the old one goes on.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from detector_core.errors import DetectorError, NoStorage
from detector_core.networks import artifacts
from detector_core.registry import versions
from serve_app.settings import Settings

T = TypeVar("T")
_log = logging.getLogger("ray.serve")


class Following(Generic[T]):
    """``current`` is what ``load`` made of the live model's folder.

    Args:
        tell: told of each live model after the first whether it was taken over.

    Raises:
        DetectorError: the first model cannot be loaded.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Path], T], tell: Callable[[bool], None] = lambda _: None
    ) -> None:
        settings.check()
        self._models, self._load, self._tell = settings.models, load, tell
        self._version = versions.history(self._models)[:1] if self._models else []
        folder = Path(artifacts.find(str(settings.model))) if settings.model else versions.live(str(self._models))
        self.current = load(folder)
        self._stopped = threading.Event()
        if self._models:
            threading.Thread(target=self._follow, args=(settings.follow_s,), name="follow live", daemon=True).start()

    def stop(self) -> None:
        """Follows no more."""
        self._stopped.set()

    def _follow(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            self.look()

    def look(self) -> None:
        """Takes over another live version, if there is one. One that is broken is tried once, a lost store again."""
        models = str(self._models)
        try:
            version = versions.history(models)[:1]
            if version == self._version:
                return
            self.current = self._load(versions.live(models))
        except (OSError, NoStorage) as error:
            _log.warning("%s cannot be read now, the model before goes on: %s", models, error)
            return
        except DetectorError as error:
            _log.error("the live model of %s cannot be taken over, the one before goes on: %s", models, error)
            self._tell(False)
        except Exception:  # whatever a runtime raises on a file it cannot use: following must go on, for the next one
            _log.exception("the live model of %s cannot be loaded, the one before goes on", models)
            self._tell(False)
        else:
            _log.info("now serving %s", version[0])
            self._tell(True)
        self._version = version
