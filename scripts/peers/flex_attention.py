"""PyTorch's compiled flex_attention and its block mask, for ./bench flex --python.

python flex_attention.py DTYPE THREADS serves `forward` (causal, B 2, H 8, T 1024, D 64) and `block_mask` (causal,
T 8192): see serving.py.
"""

import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from serving import serve


def causal(b, h, q, kv):
    return q >= kv


def block_mask(length):
    return create_block_mask(causal, None, None, length, length, device="cpu")


def make_forward(dtype):
    q, k, v = (torch.randn(2, 8, 1024, 64, dtype=dtype) for _ in range(3))
    mask = block_mask(1024)
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask)


def main(dtype, threads):
    torch.set_num_threads(threads)
    with torch.no_grad():
        makers = {"forward": lambda: make_forward(getattr(torch, dtype)), "block_mask": lambda: lambda: block_mask(8192)}
        serve(dtype, makers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
