"""The graph of a net: which layers a state keeps, where splits go, and which layers run backward.

Pure functions on definitions and names, as Caffe's FilterNet, InsertSplits and the end of Net::Init.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from .errors import NetError, nearest
from .proto.caffe_pb2 import LayerParameter, NetParameter, NetState, NetStateRule, Phase

M = TypeVar("M", NetParameter, LayerParameter)

# Caffe: an output of a layer is named by the layer's index and the index of the top.
Top = tuple[int, int]


def rule_failure(state: NetState, rule: NetStateRule) -> str | None:
    """Why `state` does not meet `rule`, or None where it does."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return f"phase is {Phase.Name(state.phase)}, the rule wants {Phase.Name(rule.phase)}"
    if rule.HasField("min_level") and state.level < rule.min_level:
        return f"level {state.level} is below min_level {rule.min_level}"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return f"level {state.level} is above max_level {rule.max_level}"
    for stage in rule.stage:
        if stage not in state.stage:
            return f"stage {stage!r} is not set"
    for stage in rule.not_stage:
        if stage in state.stage:
            return f"stage {stage!r} is set"
    return None


def keeps(layer: LayerParameter, state: NetState) -> bool:
    """Whether a net in `state` has the layer: any include rule met, or no exclude rule met.

    Raises
    ------
    NetError : the layer has both include and exclude rules
    """
    if layer.include and layer.exclude:
        raise NetError(f"{layer.name} ({layer.type}): gives both include and exclude rules; give one kind")
    if layer.include:
        return any(rule_failure(state, rule) is None for rule in layer.include)
    return all(rule_failure(state, rule) is not None for rule in layer.exclude)


def _without(message: M, field: str) -> M:
    """A copy of a message without one field, which is not copied on the way: it may hold all the weights."""
    return type(message)(**{known.name: value for known, value in message.ListFields() if known.name != field})


def filter_net(net: NetParameter) -> NetParameter:
    """A copy of `net` with the layers that its state keeps."""
    kept = _without(net, "layer")
    kept.layer.extend(layer for layer in net.layer if keeps(layer, net.state))
    return kept


def _split_name(blob: str, layer: str, top: int) -> str:
    return f"{blob}_{layer}_{top}_split"


def _sources(layers: Sequence[LayerParameter]) -> tuple[dict[Top, Top], dict[Top, int], dict[Top, float]]:
    """For each bottom the top that feeds it; for each top its number of uses and its loss weight.

    Raises
    ------
    NetError : a bottom that no earlier layer makes, a top that two layers make
    """
    made: dict[str, Top] = {}
    source: dict[Top, Top] = {}
    uses: dict[Top, int] = defaultdict(int)
    weights: dict[Top, float] = {}
    for i, layer in enumerate(layers):
        who = f"{layer.name} ({layer.type})"
        for j, name in enumerate(layer.bottom):
            if name not in made:
                # A layer that works in place makes none.
                later = [other for other in layers[i:] if name in other.top and name not in other.bottom]
                if later:
                    why = f"layer {later[0].name!r} makes it only later; a net has no cycles, so move that layer up"
                else:
                    why = nearest(name, made) or f"known blobs: {', '.join(made) or 'none'}"
                raise NetError(f"{who}: unknown bottom blob {name!r} (bottom index {j}); {why}")
            source[i, j] = made[name]
            uses[made[name]] += 1
        for j, name in enumerate(layer.top):
            in_place = j < len(layer.bottom) and layer.bottom[j] == name
            if name in made and not in_place:
                first = layers[made[name][0]].name
                raise NetError(f"{who}: top blob {name!r} is already made by layer {first!r}; "
                               "give it another name (in place, top and bottom stand at the same index)")
            made[name] = (i, j)
        for j, weight in enumerate(layer.loss_weight[:len(layer.top)]):
            weights[made[layer.top[j]]] = weight
            if weight:
                uses[made[layer.top[j]]] += 1
    return source, uses, weights


def insert_splits(net: NetParameter) -> NetParameter:
    """A copy of `net` in which every top feeds one bottom: shared ones get a Split layer.

    Caffe: names are blob_layer_top_split_k; a loss weight moves to the first top of the split.
    """
    source, uses, weights = _sources(net.layer)
    result = _without(net, "layer")
    taken: dict[Top, int] = defaultdict(int)
    for i, original in enumerate(net.layer):
        layer = result.layer.add()
        layer.CopyFrom(original)
        for j, name in enumerate(original.bottom):
            top = source[i, j]
            if uses[top] > 1:
                layer.bottom[j] = f"{_split_name(name, net.layer[top[0]].name, top[1])}_{taken[top]}"
                taken[top] += 1
        for j, name in enumerate(original.top):
            count = uses[i, j]
            if count < 2:
                continue
            split = result.layer.add(name=_split_name(name, original.name, j), type="Split", bottom=[name])
            split.top.extend(f"{split.name}_{k}" for k in range(count))
            weight = weights.get((i, j), 0.0)
            if weight:
                # Caffe clears it, upon which a loss layer takes its default of 1 and is counted twice.
                layer.loss_weight[j] = 0
                split.loss_weight.extend([weight] + [0.0] * (count - 1))
                taken[i, j] += 1
    return result


def names_before_splits(net: NetParameter) -> dict[str, str]:
    """What the definition calls the blobs that `insert_splits` made of one."""
    return {top: layer.bottom[0] for layer in net.layer if layer.type == "Split" and len(layer.bottom) == 1
            and layer.name.startswith(f"{layer.bottom[0]}_") and layer.name.endswith("_split") for top in layer.top}


@dataclasses.dataclass(frozen=True)
class Step:
    """What the backward plan must know of one layer.

    Attributes
    ----------
    bottoms, tops : names of its blobs
    given : its propagate_down fields, one a bottom, or none
    learns : whether it has a parameter that is to be learnt
    loss : whether a top of it counts in the loss
    forceable : for each bottom, whether force_backward may ask for its gradient
    """

    bottoms: Sequence[str]
    tops: Sequence[str]
    given: Sequence[bool]
    learns: bool
    loss: bool
    forceable: Sequence[bool]


def plan_backward(steps: Sequence[Step], force: bool) -> tuple[list[bool], list[list[bool]]]:
    """Find which layers run backward, and for which of their bottoms.

    Caffe: ``propagate_down: true`` by itself makes no layer run backward; `force` (force_backward) does.
    """
    runs: list[bool] = []
    down: list[list[bool]] = []
    needed: set[str] = set()
    for step in steps:
        from_below = [name in needed for name in step.bottoms]
        runs.append(any(from_below) or step.learns)
        down.append(list(step.given) or from_below)
        if runs[-1]:
            needed.update(step.tops)
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for i in reversed(range(len(steps))):
        step = steps[i]
        contributes = step.loss or any(name in under_loss for name in step.tops)
        if all(name in skipped for name in step.tops) or not contributes:
            runs[i] = False
            down[i] = [False] * len(down[i])
        for name, wanted in zip(step.bottoms, down[i], strict=True):
            if contributes:
                under_loss.add(name)
            if not wanted:
                skipped.add(name)
    if force:
        runs = [True] * len(steps)
        down = [[wanted or may for wanted, may in zip(wants, step.forceable, strict=True)]
                for wants, step in zip(down, steps, strict=True)]
    return runs, down


def without_weights(net: NetParameter) -> NetParameter:
    """`net` without the numbers of its parameters: the definition alone."""
    if not any(layer.blobs for layer in net.layer):
        return net
    copy = _without(net, "layer")
    copy.layer.extend(_without(layer, "blobs") for layer in net.layer)
    return copy
