import time


def milliseconds(call, repeat):
    """The wall time of each of `repeat` calls."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return times
