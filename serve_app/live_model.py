"""The model of a replica: loaded at its start, and replaced in place when another version becomes live.

Every replica polls ``MODELS/live`` itself, so promotions and rollbacks reach a service however it was deployed,
without a restart and without a failed request: the old model answers until the new one is loaded. If a version cannot
be loaded, this is logged once, and the old model stays.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from detector_core.errors import DetectorError, StorageUnavailable
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.storage import os_errors
from serve_app.settings import Settings

T = TypeVar("T")
_log = logging.getLogger("ray.serve")


def poll(update: Callable[[], None], every_s: float) -> threading.Event:
    """Calls ``update`` again and again in a thread, until the event that is returned is set."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(every_s):
            try:
                update()
            except Exception:  # whatever it is, this process must not be the only one that stops following
                _log.exception("the models cannot be followed at the moment")

    threading.Thread(target=run, name="poll models", daemon=True).start()
    return stopped


class LiveModel(Generic[T]):
    """Follows the live model: ``current`` is the result of ``load`` for its folder.

    Args:
        load: turns a model folder into what ``current`` should hold.
        on_change: called after each change of the live model with whether it could be loaded.

    Raises:
        DetectorError: the first model cannot be loaded.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Path], T], on_change: Callable[[bool], None] = lambda _: None
    ) -> None:
        settings.check()
        self._models, self._load, self._on_change = settings.models, load, on_change
        try:
            self._version = versions.history(self._models)[:1] if self._models else []
            folder = Path(artifacts.find(str(settings.model))) if settings.model else versions.live(str(self._models))
            self.current = load(folder)
        except OSError as error:
            raise DetectorError(f"the model cannot be read: {os_errors.explain(error)}") from None
        self._stopped = poll(self.update, settings.poll_s) if self._models else threading.Event()

    def stop(self) -> None:
        """Stops polling."""
        self._stopped.set()

    def update(self) -> None:
        """Loads the live version if it has changed. A broken version is tried once, an unreachable store again."""
        models = str(self._models)
        try:
            version = versions.history(models)[:1]
            if version == self._version:
                return
            self.current = self._load(versions.live(models))
        except (OSError, StorageUnavailable) as error:
            _log.warning("%s cannot be read at the moment, so the previous model stays: %s", models, error)
            return
        except DetectorError as error:
            _log.error("the live model of %s cannot be loaded, so the previous one stays: %s", models, error)
            self._on_change(False)
        except Exception:  # a runtime may raise anything for a file it cannot use; polling must go on regardless
            _log.exception("the live model of %s cannot be loaded, so the previous one stays", models)
            self._on_change(False)
        else:
            _log.info("now serving %s", version[0])
            self._on_change(True)
        self._version = version
