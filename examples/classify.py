"""Say which digits some images show, with a deploy net and a caffemodel.

    python examples/classify.py                                     learns scikit-learn's digits first, in seconds
    python examples/classify.py deploy.prototxt net.caffemodel 3.png 7.png

A program as they are written for pycaffe: only the first import differs.  Images are grey; the net's input is
(batch, 1, height, width), and its output has a number for each class.
"""

import argparse
import os
import tempfile

import numpy as np

import barista as caffe
from barista import layers as L  # noqa: N812
from barista import params as P  # noqa: N812


def classify(model, weights, images, mean):
    """The probabilities of the classes, a row for each grey image of (H,W,1) from 0 to 1."""
    net = caffe.Net(model, weights, caffe.TEST)
    name = net.inputs[0]
    transformer = caffe.io.Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    transformer.set_mean(name, np.array([mean]))
    net.blobs[name].reshape(len(images), *net.blobs[name].data.shape[1:])
    for number, image in enumerate(images):
        net.blobs[name].data[number] = transformer.preprocess(name, image)
    return net.forward()[net.outputs[0]].copy()


def body(net, data):
    """Add the layers that training and deploying share; return the scores."""
    net.conv = L.Convolution(data, num_output=16, kernel_size=3, weight_filler=dict(type="xavier"))
    net.relu = L.ReLU(net.conv, in_place=True)
    net.pool = L.Pooling(net.relu, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    net.score = L.InnerProduct(net.pool, num_output=10, weight_filler=dict(type="xavier"))
    return net.score


def learn(folder, images, labels, mean, steps):
    """Train on images of 8 x 8 pixels; return the paths of a deploy net and its caffemodel."""
    batch = 50
    train = caffe.NetSpec()
    train.data = L.Input(shape=dict(dim=[batch, 1, 8, 8]))
    train.label = L.Input(shape=dict(dim=[batch]))
    train.loss = L.SoftmaxWithLoss(body(train, train.data), train.label)
    deploy = caffe.NetSpec()
    deploy.data = L.Input(shape=dict(dim=[batch, 1, 8, 8]))
    deploy.prob = L.Softmax(body(deploy, deploy.data))
    settings = 'net: "train.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" snapshot_after_train: false'
    for name, text in (("train", train.to_proto()), ("deploy", deploy.to_proto()), ("solver", settings)):
        with open(os.path.join(folder, name + ".prototxt"), "w") as file:
            file.write(str(text))
    solver = caffe.SGDSolver(os.path.join(folder, "solver.prototxt"))
    order = np.random.RandomState(0)
    for step in range(steps):
        chosen = order.choice(len(images), batch, replace=False)
        solver.net.blobs["data"].data[...] = images[chosen].transpose(0, 3, 1, 2) - mean
        solver.net.blobs["label"].data[...] = labels[chosen]
        solver.step(1)
        if step % 100 == 0:
            print(f"step {step}: loss {float(solver.net.blobs['loss'].data):.3f}")
    weights = os.path.join(folder, "digits.caffemodel")
    solver.net.save(weights)
    return os.path.join(folder, "deploy.prototxt"), weights


def main(words=None):
    """Run the program; return the part of scikit-learn's digits that it told right, or None for images of yours."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="deploy net")
    parser.add_argument("weights", nargs="?", help="caffemodel")
    parser.add_argument("images", nargs="*", help="image files")
    parser.add_argument("--mean", type=float, default=0.3, help="what is subtracted from all pixels (default 0.3)")
    parser.add_argument("--steps", type=int, default=300, help="steps of training (default 300)")
    args = parser.parse_args(words)
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    if args.images:
        images = [caffe.io.load_image(name, color=False) for name in args.images]
        for name, row in zip(args.images, classify(args.model, args.weights, images, args.mean), strict=True):
            print(f"{name}: {row.argmax()} ({row.max():.1%})")
        return None
    if args.model:
        parser.error("give a deploy net, a caffemodel and images, or nothing")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., np.newaxis]
    with tempfile.TemporaryDirectory() as folder:
        model, weights = learn(folder, images[:1400], digits.target[:1400], args.mean, args.steps)
        rows = classify(model, weights, images[1400:], args.mean)
    right = float((rows.argmax(1) == digits.target[1400:]).mean())
    print(f"{len(rows)} digits that it has not seen: {right:.1%} right")
    return right


if __name__ == "__main__":
    main()
