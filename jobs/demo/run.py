"""The entry point of the demo: one call, one exit code."""

from __future__ import annotations

import sys
import traceback

from pipeline.config.load import home
from pipeline.errors import HeadraceError

PROVEN, DIFFERS, FAILED, INTERRUPTED = 0, 1, 2, 130


def run_demo(rows: int | None, as_json: bool) -> int:
    """Run the demo; 0 if everything is proven, 1 if a figure differs, 2 if it could not run, 130 after Ctrl-C.

    ``rows``: only the first so many flights. ``as_json``: standard output gets the result as one JSON object and nothing
    else. Progress and errors go to standard error. Leaves no process behind, unless the demo's stack was up before.
    """
    try:
        from jobs.demo.report import Display, show_json, show_tables
        from jobs.demo.story import tell
        from jobs.demo.workspace import workspace
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"the demo needs {error.name}, which is not installed: run `make install` in a clone of the repository\n"
        )
        return FAILED
    try:
        with workspace() as place, Display() as display:
            result = tell(place, rows, display)
            display.say(f"The tables are in {place.home / 'warehouse'}; `cd {place.root} && headrace up` brings the streams back")
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the demo's processes were ended\n")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - 1 would say that a figure differs
        traceback.print_exc()
        sys.stderr.write(f"the demo failed for a reason of its own, see above and the logs in {home() / 'demo/.headrace/logs'}\n")
        return FAILED
    (show_json if as_json else show_tables)(result)
    return PROVEN if result["proof"] == "ok" else DIFFERS
