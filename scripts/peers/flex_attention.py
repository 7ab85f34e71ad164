"""Times PyTorch's compiled flex_attention and its block mask, for ./bench flex --python.

python flex_attention.py DTYPE REPEAT THREADS prints JSON: {"torch": version, "dtype": DTYPE, "forward": {"ms": [...]},
"block_mask": {"ms": [...]}}, where {"error": text} stands for what does not run. Forward: causal, B 2, H 8, T 1024,
D 64; the block mask: causal, T 8192.
"""

import json
import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from timing import milliseconds


def causal(b, h, q, kv):
    return q >= kv


def timed(make, repeat):
    try:
        call = make()
        milliseconds(call, 3)  # compiles
        return {"ms": milliseconds(call, repeat)}
    except Exception as error:  # a machine without a compiler, say
        return {"error": (str(error).strip() or repr(error)).splitlines()[0]}


def make_forward(dtype):
    q, k, v = (torch.randn(2, 8, 1024, 64, dtype=dtype) for _ in range(3))
    mask = create_block_mask(causal, None, None, 1024, 1024, device="cpu")
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask)


def main(dtype, repeat, threads):
    torch.set_num_threads(threads)
    with torch.no_grad():
        result = {
            "torch": torch.__version__,
            "dtype": dtype,
            "forward": timed(lambda: make_forward(getattr(torch, dtype)), repeat),
            "block_mask": timed(
                lambda: lambda: create_block_mask(causal, None, None, 8192, 8192, device="cpu"), repeat
            ),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
