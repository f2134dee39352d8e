"""Refreshes the pictures of the console in `docs/pictures`.

python -m tests.screenshots
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def main() -> int:
    os.environ["SCREENSHOTS_AT"] = str(ROOT / "docs" / "pictures")
    return pytest.main(["-q", str(ROOT / "tests" / "test_screenshots.py")])


if __name__ == "__main__":
    sys.exit(main())
