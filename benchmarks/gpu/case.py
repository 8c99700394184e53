"""The process of a case: `python -m benchmarks.gpu.case '{"module": ..., "arguments": ...}'`.

It calls `benchmarks.gpu.MODULE.run(folder, seconds, **arguments)`, whose result, a dict for JSON,
has `text`, a line of what it found, and `good`: whether that is as it should be; None where there
is nothing to compare. With `goes_on` it has stopped by itself, and goes on when started again.
"""

import importlib
import json
import os
import pathlib
import signal
import sys
import threading
import time


def end_with_parent() -> None:
    """Ends this process and those that it started, once its parent has ended."""
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()


def main() -> None:
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` is done
    order = json.loads(sys.argv[1])
    folder = pathlib.Path(order["folder"])
    module = importlib.import_module(f"benchmarks.gpu.{order['module']}")
    result = module.run(folder, order["seconds"], **order["arguments"])
    partial = folder / "result.part"
    partial.write_text(json.dumps(result))
    partial.replace(folder / "result.json")


if __name__ == "__main__":
    main()
