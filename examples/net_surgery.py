"""Turn a classifier into a net that looks everywhere: inner products become convolutions.

    python examples/net_surgery.py                                  on a small net with random weights
    python examples/net_surgery.py deploy.prototxt net.caffemodel OUTPUT

An inner product over a blob of (C,H,W) is a convolution with a kernel of H x W that fits once; on a larger image it
gives the scores of every window at once.  The numbers stay the same, only their shape changes, so that one copies
them.  OUTPUT gets the endings .prototxt and .caffemodel.
"""

import argparse
import os
import tempfile

import numpy as np
from google.protobuf import text_format

import barista as caffe
from barista import layers as L  # noqa: N812
from barista import params as P  # noqa: N812


def small_classifier(folder):
    """Write a net of two convolutions and two inner products with random weights; return both paths."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 32, 32]))
    n.conv1 = L.Convolution(n.data, num_output=8, kernel_size=5, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=12, kernel_size=3, weight_filler=dict(type="xavier"))
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.fc3 = L.InnerProduct(n.pool2, num_output=20, weight_filler=dict(type="xavier"),
                           bias_filler=dict(type="uniform", min=-1, max=1))
    n.relu3 = L.ReLU(n.fc3, in_place=True)
    n.fc4 = L.InnerProduct(n.relu3, num_output=5, weight_filler=dict(type="xavier"))
    n.prob = L.Softmax(n.fc4)
    model, weights = os.path.join(folder, "small.prototxt"), os.path.join(folder, "small.caffemodel")
    with open(model, "w") as file:
        file.write(str(n.to_proto()))
    caffe.Net(model, caffe.TEST).save(weights)
    return model, weights


def convolutional(model, weights, output, larger):
    """Write the net with convolutions in the place of inner products.

    Returns the old net, the new one, and the names of the layers that changed: old to new.
    """
    net = caffe.Net(model, weights, caffe.TEST)
    definition = caffe.proto.caffe_pb2.NetParameter()
    with open(model) as file:
        text_format.Merge(file.read(), definition)
    if definition.input_dim:  # the older form of an Input layer
        definition.input_dim[2] += larger
        definition.input_dim[3] += larger
    renamed = {}
    for layer in definition.layer:
        if layer.type == "Input":
            # The same batch and channels, but a larger image.
            shape = layer.input_param.shape[0].dim
            shape[2], shape[3] = shape[2] + larger, shape[3] + larger
        if layer.type == "InnerProduct":
            below = net.blobs[layer.bottom[0]].data.shape
            count = layer.inner_product_param.num_output
            layer.ClearField("inner_product_param")
            layer.type = "Convolution"
            layer.convolution_param.num_output = count
            layer.convolution_param.kernel_h, layer.convolution_param.kernel_w = (tuple(below[2:]) + (1, 1))[:2]
            # A new name, so that parameters of another shape are not loaded into it.
            renamed[layer.name] = layer.name + "-conv"
            layer.name = renamed[layer.name]
    with open(output + ".prototxt", "w") as file:
        file.write(text_format.MessageToString(definition))
    full = caffe.Net(output + ".prototxt", weights, caffe.TEST)
    for old, new in renamed.items():
        for before, after in zip(net.params[old], full.params[new], strict=True):
            after.data.flat = before.data.flat
        print(f"{old} {net.params[old][0].data.shape} -> {new} {full.params[new][0].data.shape}")
    full.save(output + ".caffemodel")
    return net, full, renamed


def main(words=None):
    """Run the program; return the largest difference between windows of the new net and the old net on each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="deploy net")
    parser.add_argument("weights", nargs="?", help="its caffemodel")
    parser.add_argument("output", nargs="?", help="the new files, without their endings")
    args = parser.parse_args(words)
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    larger, stride = 16, 4
    with tempfile.TemporaryDirectory() as folder:
        if args.output:
            convolutional(args.model, args.weights, args.output, larger)
            return None
        if args.model:
            parser.error("give a deploy net, a caffemodel and a name for the new files, or nothing")
        output = os.path.join(folder, "full")
        net, full, _ = convolutional(*small_classifier(folder), output, larger)
        full = caffe.Net(output + ".prototxt", output + ".caffemodel", caffe.TEST)  # as the next program has it
    image = np.random.RandomState(0).rand(*full.blobs["data"].data.shape)
    everywhere = full.forward(data=image)["prob"][0]
    worst = 0.0
    for row, column in np.ndindex(*everywhere.shape[1:]):
        window = image[:, :, row * stride:row * stride + 32, column * stride:column * stride + 32]
        worst = max(worst, np.abs(net.forward(data=window)["prob"][0] - everywhere[:, row, column]).max())
    print(f"{everywhere[0].size} windows at once; the largest difference is {worst:.1e}")
    return worst


if __name__ == "__main__":
    main()
