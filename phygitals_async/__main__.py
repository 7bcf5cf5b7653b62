"""The command line: `python -m phygitals_async`, the same as `phygitals`."""

from __future__ import annotations

from phygitals_async.cli import main

if __name__ == "__main__":
    main()
