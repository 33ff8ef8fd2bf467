"""Nets: layers in order, the blobs between them, parameters and who needs a gradient.

The construction follows Caffe: filter by state, insert splits, set up layer after layer,
then walk back from the losses to find which gradients are needed.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from . import rng
from .blob import HOST, Blob, SyncedMemory
from .compose import default_ops
from .errors import NetError
from .frontends.prototxt import read_net, to_text
from .layers import NAMELESS, Layer, check_counts, make_layer, rectified_before
from .memory_plan import Plan, Use, apply_plan, make_plan, uses
from .named import NamedBlobs
from .net_graph import Step, filter_net, insert_splits, names_before_splits, plan_backward, without_weights
from .net_params import Learnable as Learnable
from .net_params import Parameters, copy_params, share_params
from .net_pycaffe import Moment, PycaffeNet
from .ops.base import OpSet, Owner
from .proto.blobs import array_to_blob
from .proto.caffe_pb2 import LayerParameter, NetParameter, NetState, Phase
from .weights import read_weights, write_weights

log = logging.getLogger(__name__)

Path = str | os.PathLike[str]
# Shapes of a layer's bottoms, and the memory that its tops lie on where they share it.
Form = tuple[list[tuple[int, ...]], list[SyncedMemory]]


def say(origin: str, text: str, *values: object) -> None:
    """Log a line of Caffe's, with the place in Caffe that readers of logs know it by."""
    log.info(text, *values, extra={"origin": origin})


class Net(PycaffeNet):
    """A network that computes; what pycaffe's users know is described in `PycaffeNet` too.

    Parameters
    ----------
    network_file : the path of a prototxt file, or the definition itself
    phase : TRAIN or TEST; None takes the definition's own state
    level, stages : the rest of the state that include and exclude rules look at
    weights : path of a caffemodel to copy parameters from; Caffe: it may also stand before the phase, or behind it
    ops : the op set that computes; None takes that of the current mode
    plan_memory : let blobs that are not needed at one time lie on one memory (see `memory_plan`); only outputs and
        what the caller fills can be read after a step then, and a test net runs forward alone

    Attributes
    ----------
    blobs : name to `Blob`, in order of making
    params : layer name to its parameter blobs
    inputs, outputs : names of the blobs that the caller fills, and that no layer uses up
    learnable : the parameters that a solver changes
    layer_need_backward : for each layer, whether its backward pass runs
    propagate_down : for each layer, which bottoms get a gradient
    plans_memory : whether blobs take turns on memory

    Raises
    ------
    NetError, ShapeError : the definition does not make a net; the message names the layer
    """

    def __init__(self, network_file: NetParameter | Path, phase: int | Path | None = None, level: int | Path = 0,
                 stages: Sequence[str] | None = None, weights: Path | None = None, *, ops: OpSet | None = None,
                 plan_memory: bool = False) -> None:
        super().__init__()
        if isinstance(phase, str | os.PathLike):
            weights = phase
            phase, level = level, 0
        elif isinstance(level, str | os.PathLike):
            weights, level = level, 0
        if phase not in (None, *Phase.values()) or not isinstance(level, int):
            raise NetError(f"a net takes its definition, a phase (TRAIN or TEST) and weights; got {phase!r} for the "
                           f"phase and {weights!r} for the weights")
        given = network_file if isinstance(network_file, NetParameter) else read_net(os.fspath(network_file))
        definition = NetParameter()
        definition.CopyFrom(given)
        if phase is not None:
            definition.state.MergeFrom(NetState(phase=Phase.Name(phase)))
        if level:
            definition.state.level = level
        definition.state.stage.extend(stages or ())
        self.ops = ops if ops is not None else default_ops()
        self.phase = definition.state.phase
        filtered = filter_net(definition)
        say("net.cpp:53", "Initializing net from parameters: \n%s", to_text(without_weights(filtered)).rstrip())
        self.param = insert_splits(filtered)
        self._before_splits = names_before_splits(self.param)
        self.name: str = self.param.name
        self.layers: list[Layer] = []
        self.blobs: dict[str, Blob] = NamedBlobs(f"net {self.name!r} has no blob")
        self._parameters = Parameters(self.name)
        self.params = self._parameters.by_layer
        self.learnable = self._parameters.learnable
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._bottoms: list[list[Blob]] = []
        self._tops: list[list[Blob]] = []
        # What each layer was last reshaped for; None where that failed.
        self._reshaped_for: list[Form | None] = []
        self._learns: list[bool] = []
        self._memory_bytes = 0
        try:
            for layer_param in self.param.layer:
                self._add_layer(layer_param)
            self._plan_backward()
            self._tell_passes()
            self._rectified = [False, *map(rectified_before, self.layers, self.layers[1:])]
        except BaseException:
            self.close()
            raise
        # An in-place layer uses its blob up and makes it again. Caffe: the top that a loss leaves out is no output.
        available: set[str] = set()
        for layer_param in self.param.layer:
            available.difference_update(layer_param.bottom)
            available.update(layer_param.top)
        self.outputs = sorted(available)
        self.plans_memory = plan_memory
        if plan_memory:
            apply_plan(self.memory_plan(), self.blobs)
            self._reshaped_for = [*map(_form, self.layers, self._bottoms)]
        for name in self.outputs:
            say("net.cpp:244", "This network produces output %s", name)
        say("net.cpp:257", "Network initialization done.")
        if weights is not None:
            self.copy_from(weights)

    # ---- construction -----------------------------------------------------------------------

    def _add_layer(self, param: LayerParameter) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if not param.name:
            raise NetError(f"a layer of type {param.type!r} has no name; give every layer a name of its own")
        if len(param.propagate_down) not in (0, len(param.bottom)):
            raise NetError(f"{param.name} ({param.type}): has {len(param.bottom)} bottom(s) and "
                           f"{len(param.propagate_down)} propagate_down; give none, or one a bottom")
        # Caffe: what the definition says of learning counts here, before BatchNorm adds its zeros.
        declared = [spec.lr_mult != 0 for spec in param.param]
        say("net.cpp:86", "Creating Layer %s", param.name)
        layer = make_layer(param, self.ops, param.phase, rng.generator())
        layer.before_splits = self._before_splits
        bottom = [self.blobs[name] for name in param.bottom]
        names = list(param.top)
        # Caffe: a loss may leave its top out.
        if layer.is_loss and not names:
            name = f"(automatic) {param.name}"
            names.append(name if name not in self.blobs else f"{name} of layer {len(self.layers)}")
        top = []
        for index, name in enumerate(names):
            in_place = index < len(param.bottom) and param.bottom[index] == name
            if name in self.blobs and not in_place:
                raise layer.error(f"top {name!r} would overwrite a blob that other layers read too; "
                                  "give the top another name", NetError)
            blob = self.blobs[name] if in_place else Blob((), self.ops.dtype, name)
            self.blobs[name] = blob
            top.append(blob)
            if param.type == "Input":
                self.inputs.append(name)
        check_counts(layer, len(bottom), len(top))
        self.layers.append(layer)
        self._bottoms.append(bottom)
        self._tops.append(top)
        self._bottom_names.append(list(param.bottom))
        self._top_names.append(names)
        self.ops.owner = Owner(self.name, self.phase, layer.name)
        for name in param.bottom:
            say("net.cpp:408", "%s <- %s", param.name, name)
        for name in names:
            say("net.cpp:382", "%s -> %s%s", param.name, name, " (in-place)" if name in param.bottom else "")
        before = [blob.shape for blob in bottom]
        try:
            layer.setup(bottom, top)
            layer.reshape(bottom, top)
        except NAMELESS as error:
            layer.fail(error)
        except MemoryError as error:
            raise layer.error(f"needs more memory than there is ({error}); lower batch_size, or its sizes") from error
        for name, blob, shape in zip(param.bottom, bottom, before, strict=True):
            if blob.count != math.prod(shape):
                raise layer.error(f"cannot work in place, since {name!r} would change from shape {shape} to "
                                  f"{blob.shape}; give the top a name of its own", NetError)
        say("net.cpp:124", "Setting up %s", param.name)
        for blob in top:
            self._memory_bytes += blob.count * blob.dtype.itemsize
            say("net.cpp:131", "Top shape: %s (%d)", " ".join(map(str, blob.shape)), blob.count)
        say("net.cpp:139", "Memory required for data: %d", self._memory_bytes)
        self._reshaped_for.append(_form(layer, bottom))
        self._set_loss_weights(layer, top)
        self._parameters.add(layer)
        count = len(layer.blobs)
        self._learns.append(any(declared[:count]) or len(declared) < count)

    def _set_loss_weights(self, layer: Layer, top: list[Blob]) -> None:
        given = list(layer.param.loss_weight)
        if given and len(given) != len(top):
            raise layer.error(f"has {len(top)} top(s) and {len(given)} loss_weight; give none, or one a top", NetError)
        default = [1.0] + [0.0] * (len(top) - 1) if layer.is_loss and top else [0.0] * len(top)
        layer.loss_weights = given or default
        self._seed_losses(layer, top)

    @staticmethod
    def _seed_losses(layer: Layer, top: Sequence[Blob]) -> None:
        """The gradient of the loss with respect to a loss top is its weight."""
        for blob, weight in zip(top, layer.loss_weights, strict=True):
            if weight:
                blob.grad.write(HOST)[...] = weight

    def _plan_backward(self) -> None:
        """Ask the graph which layers run backward, and tell the layers what they need."""
        steps = [Step(bottoms=list(layer.param.bottom), tops=names, given=list(layer.param.propagate_down),
                      learns=learns, loss=any(layer.loss_weights),
                      forceable=[layer.allow_force_backward(j) for j in range(len(layer.param.bottom))])
                 for layer, names, learns in zip(self.layers, self._top_names, self._learns, strict=True)]
        self.layer_need_backward, self.propagate_down = plan_backward(steps, self.param.force_backward)
        for layer, needs in zip(reversed(self.layers), reversed(self.layer_need_backward), strict=True):
            if needs:
                say("net.cpp:200", "%s needs backward computation.", layer.name)
            else:
                say("net.cpp:202", "%s does not need backward computation.", layer.name)
        if self.param.force_backward:
            for layer in self.layers:
                layer.param_propagate_down = [True] * len(layer.blobs)

    def _tell_passes(self) -> None:
        """Let the op set hold what was planned for it against what runs: of a test net, the forward passes."""
        trains = self.phase == Phase.Value("TRAIN")
        # Of layers that share a name the one with parameters counts, since no other has passes.
        self.ops.check_net(self.name, self.phase, {
            layer.name: layer.passes(trains and needs, down) for layer, needs, down in
            zip(self.layers, self.layer_need_backward, self.propagate_down, strict=True)
            if layer.blobs or layer.name not in self.params})

    def uses(self) -> list[Use]:
        """What a plan of its memory must know of its layers."""
        return uses(self.layers, self._top_names, self.layer_need_backward, self.propagate_down)

    def memory_plan(self) -> Plan:
        """Which values and gradients of a step (of a test net: its forward passes) could lie on one memory."""
        keep = [name for name, weight in self.blob_loss_weights.items() if weight]
        for layer, bottoms, tops in zip(self.layers, self._bottom_names, self._top_names, strict=True):
            if layer.shows_blobs:
                keep += [*bottoms, *tops]
        return make_plan(self.uses(), {name: blob.count for name, blob in self.blobs.items()}, [*self.outputs, *keep],
                         backward=self.phase == Phase.Value("TRAIN"))

    # ---- running ----------------------------------------------------------------------------

    def reshape(self) -> None:
        """Carry changed shapes of input blobs through all layers.

        Where a layer refuses its new shapes the blobs above it keep theirs; give shapes that fit, and reshape again.
        """
        for index in range(len(self.layers)):
            self._reshape_layer(index)

    def _reshape_layer(self, index: int) -> None:
        layer, bottom, top = self.layers[index], self._bottoms[index], self._tops[index]
        form = _form(layer, bottom)
        if form == self._reshaped_for[index] and not layer.reshapes_always:
            return
        before = [blob.shape for blob in top]
        self.ops.owner = Owner(self.name, self.phase, layer.name)
        self._reshaped_for[index] = None
        try:
            layer.reshape(bottom, top)
        except NAMELESS as error:
            layer.fail(error)
        except MemoryError as error:
            raise layer.error(f"needs more memory than there is ({error}); lower batch_size, or its sizes") from error
        self._reshaped_for[index] = form
        if before != [blob.shape for blob in top]:
            self._seed_losses(layer, top)

    def forward_pass(self, start: int = 0, end: int | None = None) -> None:
        """Run the layers `start` to `end` (inclusive, None: the last) without reading anything back.

        Where a ReLU follows a convolution and both run, the convolution rectifies what it writes.
        """
        for name in self.inputs:
            value = self.blobs[name].value
            if value.memory.seen:
                # The caller may have kept a view and written into it again.
                value.update(HOST)
        for first, last in self.forward_steps(start, end):
            self.call_hooks(Moment.BEFORE_FORWARD, first)
            self._reshape_layer(first)
            layer = self.layers[first]
            try:
                run = layer.forward if first == last else layer.forward_rectified
                run(self._bottoms[first], self._tops[first])
            except NAMELESS as error:
                layer.fail(error)
            if first != last:
                self._reshape_layer(last)
            self.call_hooks(Moment.AFTER_FORWARD, last)

    def forward_steps(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The steps in which `forward_pass` runs these layers: first and last layer of each."""
        stop = len(self.layers) if end is None else end + 1
        # Hooks look between the layers.
        joins = not (self.hooks[Moment.BEFORE_FORWARD] or self.hooks[Moment.AFTER_FORWARD])
        index = start
        while index < stop:
            last = index + 1 if joins and index + 1 < stop and self._rectified[index + 1] else index
            yield index, last
            index = last + 1

    def backward_pass(self, start: int | None = None, end: int = 0) -> None:
        """Run the backward passes of the layers `start` (None: the last) down to `end`."""
        if self.plans_memory and self.phase == Phase.Value("TEST"):
            raise NetError(f"net {self.name!r} plans its memory for the forward passes of a test, and has given up "
                           "what a backward pass needs; make it with plan_memory=False")
        for index in range(len(self.layers) - 1 if start is None else start, end - 1, -1):
            self.call_hooks(Moment.BEFORE_BACKWARD, index)
            if self.layer_need_backward[index]:
                layer = self.layers[index]
                try:
                    layer.backward(self._tops[index], self.propagate_down[index], self._bottoms[index])
                except NAMELESS as error:
                    layer.fail(error)
            self.call_hooks(Moment.AFTER_BACKWARD, index)

    def loss(self, start: int = 0, end: int | None = None) -> float:
        """The weighted loss of the last forward pass, or the part of these layers; reading it waits for the device."""
        total = 0.0
        layers = slice(start, None if end is None else end + 1)
        for layer, top in zip(self.layers[layers], self._tops[layers], strict=True):
            for blob, weight in zip(top, layer.loss_weights, strict=True):
                if weight:
                    total += float(np.vdot(blob.value.read(HOST), blob.grad.read(HOST)))
        return total

    def __repr__(self) -> str:
        return f"Net({self.name!r}, {Phase.Name(self.phase)}, {len(self.layers)} layers)"

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for learnable in self.learnable:
            learnable.blob.grad.clear()

    def close(self) -> None:
        """Stop the threads and close the files of data layers."""
        for layer in self.layers:
            layer.close()

    # ---- weights ----------------------------------------------------------------------------

    def share_trained_layers_with(self, other: Net) -> None:
        """Lie on the parameters of `other`'s layers of the same names.

        Raises
        ------
        ShapeError : a layer of the same name has parameters of other shapes
        """
        share_params(self.params, other.params, f"net {other.name!r}")

    def share_with(self, other: Net) -> None:
        """Lie on the parameters of `other`'s layers of the same names (pycaffe's name)."""
        self.share_trained_layers_with(other)

    def copy_trained_layers(self, weights: NetParameter, source: str) -> None:
        """Copy the parameters of layers of the same names; others are left alone, and said.

        Raises
        ------
        SnapshotError : no layer of the same name, or one whose parameters have other shapes
        """
        copy_params(self.params, weights, source)

    def copy_from(self, path: str | os.PathLike[str]) -> None:
        """Copy parameters from a caffemodel (binary, or HDF5 where the name ends in .h5)."""
        self.copy_trained_layers(read_weights(path), os.fspath(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write definition and parameters as a caffemodel (HDF5 where the name ends in .h5)."""
        write_weights(self.to_proto(), path)

    def to_proto(self, write_diff: bool = False) -> NetParameter:
        """The definition with the parameters in its blobs.

        Caffe: inserted Split layers are part of it.
        """
        result = NetParameter(name=self.name)
        for layer in self.layers:
            param = result.layer.add()
            param.CopyFrom(layer.param)
            del param.blobs[:]
            for blob in layer.blobs:
                array_to_blob(blob.value.read(HOST), param.blobs.add(), blob.grad.read(HOST) if write_diff else None)
        return result


def _form(layer: Layer, bottom: Sequence[Blob]) -> Form:
    """What decides whether a layer must be reshaped."""
    shared = []
    if layer.shares_value:
        shared += [blob.value.memory for blob in bottom[:1]]
    if layer.shares_grad:
        shared += [blob.grad.memory for blob in bottom[:1]]
    return [blob.shape for blob in bottom], shared
