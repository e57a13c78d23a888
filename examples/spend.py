"""A job that knows nothing of creditguard: it generates a few images and prints what they cost.

creditguard run --budget 40 -- python examples/spend.py 4
"""

from __future__ import annotations

import sys

from apimall import client, generate

if __name__ == "__main__":
    with client() as api:
        for number in range(int(sys.argv[1])):
            print(f"image {number + 1}: {generate(api, f'image {number}')} credits", flush=True)
