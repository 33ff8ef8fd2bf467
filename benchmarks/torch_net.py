"""A Caffe definition as a PyTorch module, so that both sides of a comparison run the same network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional

from barista.net import Net
from barista.proto.caffe_pb2 import EltwiseParameter, LRNParameter, PoolingParameter


class TorchNet(torch.nn.Module):
    """The layers of `net` (without its inputs) in PyTorch, for training.

    Takes (images, labels) and returns the loss.  Caffe's ceiling rule of pooling is PyTorch's
    ``ceil_mode``; LRN within a channel is written out, since PyTorch has none.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.steps = [layer.param for layer in net.layers if layer.type not in ("Input", "Accuracy")]
        self.parts = torch.nn.ModuleDict()
        for layer in net.layers:
            module = self._module(layer.param, net)
            if module is not None:
                self.parts[layer.name.replace(".", "_")] = module

    @staticmethod
    def _module(param: Any, net: Net) -> torch.nn.Module | None:
        if param.type == "Convolution":
            geometry = next(layer.geometry for layer in net.layers if layer.name == param.name)
            return torch.nn.Conv2d(geometry.in_channels, geometry.out_channels, geometry.kernel, geometry.stride,
                                   geometry.pad, geometry.dilation, geometry.group,
                                   bias=param.convolution_param.bias_term)
        if param.type == "InnerProduct":
            outputs, inputs = net.params[param.name][0].shape
            return torch.nn.Linear(inputs, outputs, bias=param.inner_product_param.bias_term)
        if param.type == "BatchNorm":
            return torch.nn.BatchNorm2d(net.params[param.name][0].count, affine=False)
        if param.type == "Scale":
            # One affine module an adjoining BatchNorm: PyTorch's own would fuse the two.
            return _Affine(net.params[param.name][0].count)
        return None

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        blobs = {"data": images, "label": labels}
        loss = images.new_zeros(())
        for param in self.steps:
            bottoms = [blobs[name] for name in param.bottom]
            if param.type == "SoftmaxWithLoss":
                weight = param.loss_weight[0] if param.loss_weight else 1.0
                loss = loss + weight * functional.cross_entropy(bottoms[0], bottoms[1])
                continue
            tops = self.run_layer(param, bottoms)
            blobs.update(zip(param.top, tops, strict=True))
        return loss

    def run_layer(self, param: Any, bottoms: list[torch.Tensor]) -> list[torch.Tensor]:
        """The tops of one layer."""
        x = bottoms[0]
        name = param.name.replace(".", "_")
        if name in self.parts:
            return [self.parts[name](x.flatten(1) if param.type == "InnerProduct" else x)]
        if param.type == "ReLU":
            return [functional.relu(x, inplace=param.bottom[0] == param.top[0])]
        if param.type == "Pooling":
            return [self._pool(param.pooling_param, x)]
        if param.type == "LRN":
            return [self._lrn(param.lrn_param, x)]
        if param.type == "Dropout":
            return [functional.dropout(x, param.dropout_param.dropout_ratio, self.training)]
        if param.type == "Eltwise" and param.eltwise_param.operation == EltwiseParameter.SUM:
            return [x + bottoms[1]]
        if param.type == "Concat":
            return [torch.cat(bottoms, 1)]
        if param.type == "Split":
            return [x] * len(param.top)
        raise ValueError(f"{param.name}: no PyTorch for {param.type}")

    @staticmethod
    def _pool(param: Any, x: torch.Tensor) -> torch.Tensor:
        if param.global_pooling:
            return x.amax((2, 3), keepdim=True) if param.pool == PoolingParameter.MAX else x.mean((2, 3), keepdim=True)
        if param.pool == PoolingParameter.MAX:
            return functional.max_pool2d(x, param.kernel_size, param.stride, param.pad, ceil_mode=True)
        return functional.avg_pool2d(x, param.kernel_size, param.stride, param.pad, ceil_mode=True)

    @staticmethod
    def _lrn(param: Any, x: torch.Tensor) -> torch.Tensor:
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            return functional.local_response_norm(x, param.local_size, param.alpha, param.beta, param.k)
        pad = (param.local_size - 1) // 2
        return x * (1 + param.alpha * functional.avg_pool2d(x * x, param.local_size, 1, pad)) ** -param.beta


class _Affine(torch.nn.Module):
    """x * scale + shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = torch.nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift
