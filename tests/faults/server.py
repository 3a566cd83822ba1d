"""A process under the shim that has imported everything; it forks a child for each request.

Reads one JSON object a line, answers with one. `{"run": "module:function", "store": ..., "arm":
[...] or null, "arguments": {...}}` starts a child and answers with its pid; `{"wait": pid}` answers
with how it ended. A child costs some milliseconds, so that hundreds of crash points are cheap.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until the end of the input."""
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.faults_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
    ]
    importlib.import_module("tests.faults.writers").warm_up()
    # A collection would touch, and so copy, every page that a child shares with this process.
    gc.collect()
    gc.freeze()
    gc.disable()
    ends: dict[int, int] = {}
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "end" in request:
            return
        if "wait" in request:
            answer = _wait(request["wait"], ends.pop(request["wait"]))
        else:
            reader, writer = os.pipe()
            pid = os.fork()
            if not pid:
                _run_child(shim, request, writer)
            os.close(writer)
            ends[pid] = reader
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _wait(pid: int, reader: int) -> dict[str, Any]:  # Any: JSON values
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), **(json.loads(said) if said else {})}


def _run_child(shim: ctypes.CDLL, request: dict[str, Any], writer: int) -> None:
    said: dict[str, object] = {}
    code = 1
    try:
        os.dup2(2, 1)  # the parent answers on stdout
        module, name = request["run"].split(":")
        function = getattr(importlib.import_module(module), name)
        store = Path(request["store"])
        if request["arm"]:
            action, kinds, nth, error, log = request["arm"]
            shim.faults_arm(os.fsencode(store.parent), action, kinds, nth, error, os.fsencode(log))
        said["result"] = function(store, **request["arguments"])
        code = 0
    except BaseException as error:  # whatever it is, the test wants to see it
        said["error"] = [item.__name__ for item in type(error).__mro__]
        said["message"] = f"{error}\n{traceback.format_exc()}"
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(json.dumps(said).encode())
    os._exit(code)


if __name__ == "__main__":
    main()
