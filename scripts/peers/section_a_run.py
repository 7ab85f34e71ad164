"""Takes eager steps of the baseline in PyTorch, for ./bench baseline --python, which times the whole program.

python section_a_run.py DTYPE STEPS THREADS prints JSON: {"torch": version, "loss": of the last step}.
"""

import json
import sys

import torch
from section_a_step import make_step


def main(dtype, steps, threads):
    torch.set_num_threads(threads)
    step = make_step(dtype, compiled=False)
    for _ in range(steps):
        loss = step()
    print(json.dumps({"torch": torch.__version__, "loss": loss}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
