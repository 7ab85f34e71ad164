"""Calls that ./bench --python runs by name, one at a time, in turn with its own."""

import json
import os
import sys
import time

import torch


def serve(dtype, makers):
    """Makes the calls and runs each a few times, which compiles it. Then prints {"torch": version, "dtype": dtype,
    NAME: null, or {"error": text} for what does not run}; and from then on runs the call that each line of stdin
    names, and prints its milliseconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    calls = {}
    greeting = {"torch": torch.__version__, "dtype": dtype}
    for name, make in makers.items():
        try:
            call = make()
            for _ in range(2):
                call()
            calls[name] = call
            greeting[name] = None
        except Exception as problem:  # a machine without a compiler, say
            greeting[name] = {"error": (str(problem).strip() or repr(problem)).splitlines()[0]}
    print(json.dumps(greeting), file=answers)
    for line in sys.stdin:
        begin = time.perf_counter()
        calls[line.strip()]()
        print(1e3 * (time.perf_counter() - begin), file=answers)
