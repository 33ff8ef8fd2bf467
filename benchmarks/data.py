"""How fast images reach a network: transformation and read-ahead, best of several runs.

Run: python benchmarks/data.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from barista.data import Feeder, Transformer, array_to_datum, create_database, write_mean
from barista.data.datum import encoded_datum
from barista.data.images import encode_image
from barista.proto import caffe_pb2

# name, batch, size in pixels, crop (0: none), mirror, encoding ("": raw values)
CASES = (("CIFAR", 100, 32, 0, False, ""), ("CIFAR, crop and mirror", 100, 32, 28, True, ""),
         ("AlexNet", 16, 256, 227, True, ""), ("AlexNet, JPEG", 16, 256, 227, True, "jpg"))


def best_s(act: Callable[[], object], runs: int = 10) -> float:
    """Return the shortest of several run times."""
    times_s = []
    for _ in range(runs):
        start_s = time.perf_counter()
        act()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def main() -> None:
    """Print one line a case."""
    rng = np.random.default_rng(0)
    print(f"{'case':24} {'batch':>5} {'transform ms':>13} {'feeder images/s':>16}")
    for name, batch, size, crop, mirror, encoding in CASES:
        # Smooth images: noise would make JPEG files of a size that no photograph has.
        coarse = rng.integers(0, 256, (batch, 3, size // 16, size // 16), dtype=np.uint8)
        images = np.kron(coarse, np.ones((1, 1, 16, 16), np.uint8))
        with tempfile.TemporaryDirectory() as folder:
            path, mean = Path(folder) / "lmdb", Path(folder) / "mean.binaryproto"
            write_mean(mean, images.mean(axis=0))
            with create_database(path) as writer:
                for number, image in enumerate(images):
                    file = encode_image(image, encoding) if encoding else None
                    datum = encoded_datum(file, 0) if file else array_to_datum(image, 0)
                    writer.put(f"{number:08d}", datum.SerializeToString())
            param = caffe_pb2.TransformationParameter(mean_file=str(mean), crop_size=crop, mirror=mirror)
            transformer = Transformer(param, caffe_pb2.TRAIN, rng)
            out = np.empty((batch, *transformer.output_shape(*images.shape[1:])), np.float32)
            transform_s = best_s(lambda: transformer.transform_batch(images, out))  # noqa: B023 - called at once
            with Feeder(str(path), "LMDB", batch, transformer) as feeder:
                feed_s = best_s(lambda: [feeder.next_batch() for _ in range(10)], 5) / 10
        print(f"{name:24} {batch:5} {transform_s * 1e3:13.2f} {batch / feed_s:16,.0f}")


if __name__ == "__main__":
    main()
