"""The training step of the baseline in PyTorch, eager and compiled, for ./bench step --python.

python section_a_step.py DTYPE THREADS serves them as `eager` and `compiled`: see serving.py.
"""

import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "fixtures"))
from section_a import GPT, Config, initialize, make_optimizers  # noqa: E402
from serving import serve  # noqa: E402


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


def main(dtype, threads):
    torch.set_num_threads(threads)
    serve(dtype, {"eager": lambda: make_step(dtype, False), "compiled": lambda: make_step(dtype, True)})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
