"""Times the training step of the baseline in PyTorch, eager and compiled, for ./bench step --python.

python section_a_step.py DTYPE REPEAT THREADS prints JSON: {"torch": version, "dtype": DTYPE, "eager": {"ms": [...]},
"compiled": {"ms": [...], "first_step_seconds": s} or {"error": text}}.
"""

import json
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "fixtures"))
from section_a import GPT, Config, initialize, make_optimizers  # noqa: E402
from timing import milliseconds  # noqa: E402


def make_step(dtype, compiled):
    config = Config(n_layer=4, n_head=4, n_kv_head=4, n_embd=128, sequence_len=256, vocab_size=50304)
    model = GPT(config)
    initialize(model, seed=1)
    optimizers = make_optimizers(model, config)
    tokens = torch.randint(config.vocab_size, (2, config.batch_size, config.sequence_len))
    loss_of = torch.compile(model.loss) if compiled else model.loss

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(tokens[0], tokens[1])
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def main(dtype, repeat, threads):
    torch.set_num_threads(threads)
    result = {"torch": torch.__version__, "dtype": dtype}
    eager = make_step(dtype, compiled=False)
    eager()
    result["eager"] = {"ms": milliseconds(eager, repeat)}
    try:
        begin = time.perf_counter()
        compiled = make_step(dtype, compiled=True)
        compiled()
        seconds = time.perf_counter() - begin
        result["compiled"] = {"ms": milliseconds(compiled, repeat), "first_step_seconds": seconds}
    except Exception as problem:  # no compiler, say: the eager figure still counts
        result["compiled"] = {"error": str(problem).splitlines()[0]}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
