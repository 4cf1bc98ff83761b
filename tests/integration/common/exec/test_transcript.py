"""The transcript in docs/driver-protocol.md is played back to the driver that it names: it says what stands there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
SLEEPER = ROOT / "examples" / "drivers" / "sleeper"


def transcript() -> list[tuple[str, str]]:
    """(arrow, rest) of each line."""
    text = (ROOT / "docs" / "driver-protocol.md").read_text()
    block = text.partition("## A transcript")[2].split("```")[1]
    return [(line[0], line[1:].strip()) for line in block.strip().splitlines()]


def test_the_driver_says_what_the_page_says(folder: Path) -> None:
    lines = transcript()
    assert len(lines) > 10
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STATE": str(folder)}
    with subprocess.Popen(
        [SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as driver:
        assert driver.stdin is not None and driver.stdout is not None
        is_elided, kind = False, ""
        for arrow, line in lines:
            if arrow == "→":
                driver.stdin.write(line + "\n")
                driver.stdin.flush()
            elif arrow == "…":
                is_elided = True
            else:
                said = json.loads(driver.stdout.readline())
                while is_elided and kind in said:
                    said = json.loads(driver.stdout.readline())
                assert said == json.loads(line)
                is_elided, kind = False, list(said)[-1]
        assert driver.wait() == 0
