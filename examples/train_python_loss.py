"""Train with a loss written in Python: a layer of type Python, and a loop of solver steps.

    python examples/train_python_loss.py [--steps 200] [--plot loss.png]

The net learns to add up the numbers that it is shown.  The loss is Caffe's EuclideanLoss in a few lines of NumPy; the
layer finds it by the names of this file and of the class.
"""

import argparse
import os
import sys
import tempfile

import numpy as np

import barista as caffe
from barista import layers as L  # noqa: N812


class EuclideanLossLayer(caffe.Layer):
    """Half the mean squared distance of two blobs."""

    def setup(self, bottom, top):
        """Look at the bottoms once, when the net is made."""
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute the distance.")

    def reshape(self, bottom, top):
        """Make room; called again whenever a shape may have changed."""
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        """Compute the loss."""
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff ** 2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        """Compute the gradients of the bottoms that need one."""
        for i, sign in ((0, 1), (1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff[0] * self.diff / bottom[i].num


def definition(batch):
    """The net: numbers, an inner product, and the loss."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[batch, 5]))
    n.sum = L.Input(shape=dict(dim=[batch, 1]))
    n.ip = L.InnerProduct(n.data, num_output=1, weight_filler=dict(type="xavier"))
    n.loss = L.Python(n.ip, n.sum, module=os.path.splitext(os.path.basename(__file__))[0],
                      layer="EuclideanLossLayer", loss_weight=1)
    return n.to_proto()


def main(words=None):
    """Run the program; return the losses of all steps and the weights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of training (default 200)")
    parser.add_argument("--plot", help="draw the losses into this file; needs matplotlib")
    args = parser.parse_args(words)
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:
        sys.path.append(here)  # where the layer is found
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        net, solver = os.path.join(folder, "net.prototxt"), os.path.join(folder, "solver.prototxt")
        with open(net, "w") as file:
            file.write(str(definition(batch=32)))
        with open(solver, "w") as file:
            file.write(f'net: "{net}" base_lr: 0.05 momentum: 0.9 lr_policy: "step" stepsize: 100 gamma: 0.5 '
                       "snapshot_after_train: false")
        solver = caffe.get_solver(solver)
    numbers = np.random.RandomState(0)
    losses = np.zeros(args.steps)
    for step in range(args.steps):
        data = numbers.uniform(-1, 1, solver.net.blobs["data"].data.shape)
        solver.net.blobs["data"].data[...] = data
        solver.net.blobs["sum"].data[...] = data.sum(axis=1, keepdims=True)
        solver.step(1)
        losses[step] = solver.net.blobs["loss"].data[0]
        if step % 50 == 0:
            print(f"step {solver.iter}: loss {losses[step]:.6f}")
    weights = solver.net.params["ip"][0].data.copy()
    print(f"after {solver.iter} steps: loss {losses[-1]:.2e}, weights {weights.round(3)}")
    if args.plot:
        import matplotlib.pyplot as plt

        plt.semilogy(losses)
        plt.xlabel("step")
        plt.ylabel("loss")
        plt.savefig(args.plot)
    return losses, weights


if __name__ == "__main__":
    main()
