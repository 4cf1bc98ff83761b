"""`python -m services.devstack.guestimage --output FILE`: builds the demo guest. Must hold no logic of its own."""

import argparse
import sys
from pathlib import Path

from services.devstack.guestimage.build import build_guest_image
from services.devstack.guestimage.errors import GuestImageError


def main() -> int:
    """Exit 0 with the path on standard output, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m services.devstack.guestimage", description="Build the demo guest.")
    parser.add_argument("--output", type=Path, required=True, help="where to write the qcow2")
    parser.add_argument("--cache", type=Path, help="where packages and images are kept (default: ~/.cache/moln)")
    arguments = parser.parse_args()
    try:
        image = build_guest_image(arguments.output, arguments.cache, say=lambda text: print(text, file=sys.stderr))
    except (GuestImageError, OSError) as err:
        print(f"the guest image cannot be built: {err}", file=sys.stderr)
        return 1
    print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
