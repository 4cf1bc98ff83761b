"""`python -m services.imagesvc [--config FILE]`: imagesvc's process."""

from __future__ import annotations

import sys

from services.common.runtime import run_service
from services.common.store import StoreError
from services.imagesvc.app import main
from services.imagesvc.settings import ImagesvcSettings

if __name__ == "__main__":
    sys.exit(run_service("imagesvc", ImagesvcSettings, main, expected=(StoreError,)))
