"""How much 20,000 queries move the resident size of a process that serves them (d=768, C=4).

Usage: python tests/benchmarks/bench_memory.py [queries]
"""

import sys

import numpy as np
import psutil  # type: ignore[import-untyped]

from sealign.ckks import Cipher, Evaluator, SecretKey, ZeroPool, plan_product, product_shape

DIMENSION, CLASSES, DIFFERENT_QUERIES = 768, 4, 16


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss / 1e6)


def main(queries: int) -> None:
    generator = np.random.default_rng(0)
    weight, bias = generator.standard_normal((DIMENSION, CLASSES)) / 5, generator.standard_normal(CLASSES)
    plan = plan_product(product_shape(weight, bias))
    key = SecretKey.generate(plan.parameters)
    X = generator.standard_normal((DIFFERENT_QUERIES, DIMENSION))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    cipher = Cipher(plan, key)
    requests = [cipher.encrypt(row[None]) for row in X]
    evaluator, pool = Evaluator(plan, weight, bias), ZeroPool(key.public_key)

    before = resident_mb()
    print(f"before the first query: {before:.1f} MB")
    for served in range(1, queries + 1):
        pool.prepare()
        reply = evaluator.evaluate(requests[served % DIFFERENT_QUERIES], pool)
        if served % max(1, queries // 10) == 0 or served == 1:
            print(f"{served:6d} queries: {resident_mb() - before:+.1f} MB", flush=True)
    error = np.abs(cipher.decrypt(reply, 1) - (X[queries % DIFFERENT_QUERIES] @ weight + bias)).max()
    print(f"resident size moved by {resident_mb() - before:+.1f} MB (target: under 20); last error {error:.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
