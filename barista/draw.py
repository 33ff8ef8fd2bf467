"""``caffe.draw``: a picture of a net, its layers as boxes and its blobs as pills between them.

pycaffe leaves this to Graphviz; here the layout is our own (`graph_layout`) and matplotlib draws it, so that no other
program is needed.  A layer that works in place has no blob of its own: it is drawn, with a dashed border, behind the
blob that it changes, and what reads the blob afterwards hangs on it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .errors import DataError, MissingExtraError, UnsupportedError
from .files import why_unwritable
from .graph_layout import Layout, Point, lay_out
from .proto.caffe_pb2 import EltwiseParameter, LayerParameter, NetParameter, Phase, PoolingParameter
from .proto.upgrade import upgrade_net

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANKDIRS = ("LR", "TB", "BT", "RL")

# Kind of layer: its colour and its types. Types in none of them are drawn in `_OTHER`.
_KINDS = {
    "data": ("#fff2b3", ("AnnotatedData", "Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData",
                         "Parameter", "WindowData")),
    "convolution": ("#a9c8ea", ("Convolution", "Deconvolution", "Im2col")),
    "product": ("#c9b8e8", ("Embed", "InnerProduct", "LSTM", "LSTMUnit", "MatMul", "RNN")),
    "pooling": ("#fbc58d", ("Pooling", "PoolingNd", "SPP")),
    "activation": ("#bfe3b4", ("AbsVal", "BNLL", "Clip", "Dropout", "ELU", "Exp", "Function", "Log", "PReLU", "Power",
                               "ReLU", "ReLU6", "Sigmoid", "Swish", "TanH", "Threshold")),
    "normalisation": ("#a8dcd9", ("BatchNorm", "Bias", "LRN", "MVN", "Normalize", "Scale")),
    "loss": ("#f4a9a8", ()),
    "measure": ("#f8d3d2", ("Accuracy", "ArgMax", "LogSoftmax", "Softmax")),
}
_OTHER, _BLOB, _LINES = "#e6ddd3", "#f3f3f3", "#666666"
_COLOURS = {name: colour for colour, names in _KINDS.values() for name in names}

# Inches, but for the text's size.
_FONT, _FONT_POINTS = ["DejaVu Sans Mono", "monospace"], 8.0
_LETTER, _LINE, _PADDING = 0.602 * _FONT_POINTS / 72, 1.25 * _FONT_POINTS / 72, 0.09
_GAP_ALONG, _GAP_ACROSS, _MARGIN = 0.34, 0.22, 0.3
_ARROW, _ARROW_HALF = 0.09, 0.035

# Pictures of pixels are made coarser where they would be larger than programs open.
_DPI, _LONGEST_PIXELS, _MOST_PIXELS = 110, 32_000, 120e6


def get_pydot_graph(caffe_net: NetParameter, rankdir: str, label_edges: bool = True, phase: int | None = None,
                    display_lrm: bool = False) -> NoReturn:
    """Raise an error: graphs of pydot need Graphviz, which Barista does without.

    Raises
    ------
    UnsupportedError : always
    """
    raise UnsupportedError("get_pydot_graph makes a graph for Graphviz, which Barista does not use; "
                           "draw_net_to_file(net, 'net.svg') draws the net itself")


def draw_net(caffe_net: NetParameter, rankdir: str, ext: str = "png", phase: int | None = None,
             display_lrm: bool = False) -> bytes:
    """Draw a net.

    Parameters
    ----------
    caffe_net : the definition
    rankdir : which way it goes: LR (left to right), TB (top to bottom), BT, RL
    ext : format: png, svg, pdf and what else matplotlib writes
    phase : TRAIN or TEST draws the layers of that phase, None all
    display_lrm : show the factors on the learning rate

    Returns
    -------
    the bytes of the picture

    Raises
    ------
    DataError : a direction or a format that there is not
    MissingExtraError : matplotlib is not installed
    """
    if rankdir not in RANKDIRS:
        raise DataError(f"there is no direction {rankdir!r} to draw a net in; choose one of {', '.join(RANKDIRS)}")
    net = NetParameter()
    net.CopyFrom(caffe_net)
    upgrade_net(net, caffe_net.name or "<net>")
    _require_format(ext)
    graph = _Graph()
    for layer in net.layer:
        if phase is None or _in_phase(layer, phase):
            graph.add(layer, get_layer_label(layer, rankdir, display_lrm))
    sizes = [node.size for node in graph.nodes]
    upright = rankdir in ("TB", "BT")
    layout = lay_out([(height, width) if upright else (width, height) for width, height in sizes], graph.edges,
                     _GAP_ALONG, _GAP_ACROSS)
    return _render(net.name, graph, layout, rankdir, ext.lower())


def draw_net_to_file(caffe_net: NetParameter, filename: str | os.PathLike[str], rankdir: str = "LR",
                     phase: int | None = None, display_lrm: bool = False) -> None:
    """Draw a net into a file, whose ending (.svg, .png, .pdf, ...) says the format; else as `draw_net`.

    Raises
    ------
    DataError : the file cannot be written
    """
    name = os.fspath(filename)
    if problem := why_unwritable(name):
        raise DataError(f"{name}{problem}")
    picture = draw_net(caffe_net, rankdir, os.path.splitext(name)[1].removeprefix("."), phase, display_lrm)
    try:
        with open(name, "wb") as file:
            file.write(picture)
    except OSError as error:
        raise DataError(f"{name}: the picture cannot be written: {error.strerror}") from error


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a type of layer, such as ``#a9c8ea``; types of one kind share it."""
    if layertype.endswith("Loss"):
        return _KINDS["loss"][0]
    return _COLOURS.get(layertype, _OTHER)


def get_pooling_types_dict() -> dict[int, str]:
    """Number to name of each kind of pooling."""
    return {number: name for name, number in PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: LayerParameter) -> str:
    """What pycaffe writes beside the arrow behind a layer: its batch or number of outputs, else an empty label.

    The pictures here leave it out, since the boxes say it.
    """
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return '""'


def get_layer_lr_mult(layer: LayerParameter) -> tuple[float, float]:
    """The factors on the learning rate of a layer's weights and biases; 1 where they are not given.

    Raises
    ------
    DataError : a type other than Convolution, Deconvolution and InnerProduct, or more than two factors
    """
    if layer.type not in ("Convolution", "Deconvolution", "InnerProduct"):
        raise DataError("get_layer_lr_mult tells the factors of Convolution, Deconvolution and InnerProduct; layer "
                        f"{layer.name!r} is of type {layer.type}: read [spec.lr_mult for spec in layer.param]")
    if len(layer.param) > 2:
        raise DataError(f"layer {layer.name!r} ({layer.type}) has {len(layer.param)} param entries; give at most two, "
                        "for weights and biases")
    weights, biases = [*(spec.lr_mult for spec in layer.param), 1.0, 1.0][:2]
    return weights, biases


def get_layer_label(layer: LayerParameter, rankdir: str = "LR", display_lrm: bool = False) -> str:
    """What stands in a layer's box: its name, its type and its main numbers, on a line each.

    Parameters
    ----------
    layer : its definition
    rankdir : pycaffe's; the text is the same in all directions
    display_lrm : add the factors on the learning rate
    """
    lines = [layer.name, layer.type]
    if numbers := ", ".join(_numbers(layer)):
        lines.append(numbers)
    if display_lrm and layer.param:
        lines.append("lr_mult " + ", ".join(f"{spec.lr_mult:g}" for spec in layer.param))
    return "\n".join(lines)


def _numbers(layer: LayerParameter) -> Iterator[str]:
    """The numbers that tell most about a layer."""
    kind = layer.type
    if kind in ("Convolution", "Deconvolution", "Im2col"):
        conv = layer.convolution_param
        yield from _window(conv)
        yield from _unless(1, "dilation", list(conv.dilation))
        yield from _unless(1, "group", conv.group)
        yield from _unless(0, "outputs", conv.num_output)
    elif kind == "Pooling":
        yield PoolingParameter.PoolMethod.Name(layer.pooling_param.pool)
        if layer.pooling_param.global_pooling:
            yield "global"
        else:
            yield from _window(layer.pooling_param)
    elif kind == "InnerProduct":
        yield f"outputs {layer.inner_product_param.num_output}"
    elif kind in ("LSTM", "RNN"):
        yield f"outputs {layer.recurrent_param.num_output}"
    elif kind == "Embed":
        yield f"{layer.embed_param.input_dim} to {layer.embed_param.num_output}"
    elif kind == "LRN":
        yield f"size {layer.lrn_param.local_size}"
    elif kind == "Dropout":
        yield f"ratio {layer.dropout_param.dropout_ratio:g}"
    elif kind == "Eltwise":
        yield EltwiseParameter.EltwiseOp.Name(layer.eltwise_param.operation)
    elif kind in ("Concat", "Slice"):
        yield f"axis {(layer.concat_param if kind == 'Concat' else layer.slice_param).axis}"
    elif kind == "Input":
        yield from (" x ".join(map(str, shape.dim)) for shape in layer.input_param.shape)
    elif kind == "Python":
        yield f"{layer.python_param.module}.{layer.python_param.layer}"
    if layer.loss_weight:
        yield "weight " + " ".join(f"{weight:g}" for weight in layer.loss_weight)
    for rule in layer.include:
        if rule.HasField("phase"):
            yield f"{Phase.Name(rule.phase)} only"


def _window(param: Any) -> Iterator[str]:
    """Kernel, stride and padding of a convolution (repeated fields) or a pooling (single ones)."""
    for field, stem, default in (("kernel_size", "kernel", 0), ("stride", "stride", 1), ("pad", "pad", 0)):
        high, wide = f"{stem}_h", f"{stem}_w"
        if param.HasField(high) or param.HasField(wide):
            sizes = [getattr(param, high), getattr(param, wide)]
        else:
            value = getattr(param, field)
            sizes = [value] if isinstance(value, int) else list(value)
        yield from _unless(default, stem, sizes)


def _unless(default: int, what: str, value: int | Sequence[int]) -> Iterator[str]:
    """A number and its name, if it is not the usual one."""
    sizes = [value] if isinstance(value, int) else list(value)
    if any(size != default for size in sizes):
        yield f"{what} {'x'.join(map(str, sizes))}"


def _in_phase(layer: LayerParameter, phase: int) -> bool:
    """Whether a phase has a layer, by the phases of its rules alone.

    Caffe: a rule counts for its phase, and one that gives none counts for TRAIN.
    """
    included = not layer.include or any(rule.phase == phase for rule in layer.include)
    return included and all(rule.phase != phase for rule in layer.exclude)


def _require_format(ext: str) -> None:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "drawing a net") from None
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if ext.lower() not in formats:
        raise DataError(f"{ext!r} is no format of a picture; give one of {', '.join(formats)}")


class _Node(NamedTuple):
    """A layer or a blob of the picture."""

    text: str
    colour: str
    layer: bool
    in_place: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of its box, in inches."""
        lines = self.text.split("\n")
        return max(map(len, lines)) * _LETTER + 2 * _PADDING, len(lines) * _LINE + 2 * _PADDING * (0.5 + self.layer / 2)


class _Graph:
    """Layers, blobs, and what leads from one to the other."""

    def __init__(self) -> None:
        self.nodes: list[_Node] = []
        self.edges: list[tuple[int, int]] = []
        self._blobs: dict[str, int] = {}
        # Where a blob's present values are: at the blob, or at the last layer that changed it in place.
        self._sources: dict[str, int] = {}

    def add(self, layer: LayerParameter, label: str) -> None:
        """Add a layer and its tops behind all that were added before."""
        in_place = bool(layer.bottom) and list(layer.top) == list(layer.bottom)[:len(layer.top)] != []
        here = self._node(_Node(label, choose_color_by_layertype(layer.type), True, in_place))
        for name in layer.bottom:
            if name not in self._sources:
                self._sources[name] = self._blobs[name] = self._node(_Node(name, _BLOB, False))
            self._edge(self._sources[name], here)
        for name in layer.top:
            if name in layer.bottom:
                self._sources[name] = here
                continue
            # Two phases' layers may make one blob.
            if name not in self._blobs or self._reaches(self._blobs[name], here):
                self._blobs[name] = self._sources[name] = self._node(_Node(name, _BLOB, False))
            self._edge(here, self._blobs[name])

    def _node(self, node: _Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _edge(self, source: int, target: int) -> None:
        if (source, target) not in self.edges:
            self.edges.append((source, target))

    def _reaches(self, start: int, end: int) -> bool:
        reached = {start}
        ahead = [start]
        for node in ahead:
            new = {target for source, target in self.edges if source == node} - reached
            reached |= new
            ahead += new
        return end in reached


def _render(title: str, graph: _Graph, layout: Layout, rankdir: str, ext: str) -> bytes:
    """Draw what was laid out."""
    import matplotlib
    from matplotlib.figure import Figure

    upright = rankdir in ("TB", "BT")
    width, height = (layout.width, layout.length) if upright else (layout.length, layout.width)
    head = 2 * _LINE if title else 0.0
    width = max(width, len(title) * _LETTER * 1.4) + 2 * _MARGIN
    height += 2 * _MARGIN + head
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")

    def at(point: Point) -> tuple[float, float]:
        along = layout.length - point.along if rankdir in ("BT", "RL") else point.along
        x, y = (point.across, along) if upright else (along, point.across)
        return x + _MARGIN, y + _MARGIN + head

    if title:
        axes.text(_MARGIN, _MARGIN, title, family=_FONT, size=1.3 * _FONT_POINTS, weight="bold", va="center")
    _draw_edges(axes, graph, layout, at, upright)
    _draw_nodes(axes, graph.nodes, [at(middle) for middle in layout.middles])
    dpi = min(_DPI, _LONGEST_PIXELS / max(width, height), (_MOST_PIXELS / (width * height)) ** 0.5)
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "barista"}):
        figure.savefig(picture, format=ext, dpi=dpi, **_same_each_time(ext))
    return picture.getvalue()


def _draw_edges(axes: Axes, graph: _Graph, layout: Layout, at: Callable[[Point], tuple[float, float]],
                upright: bool) -> None:
    """Draw curves from box to box, with a head at each end."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    heads = []
    for (source, target), route in zip(graph.edges, layout.routes, strict=True):
        halves = [graph.nodes[node].size[upright] / 2 for node in (source, target)]
        here = Point(route[0].along + halves[0], route[0].across)
        tip = Point(route[-1].along - halves[1], route[-1].across)
        points.append(at(here))
        codes.append(Path.MOVETO)
        stops = [*route[1:-1], Point(tip.along - _ARROW, tip.across)]
        # A curve to where a layer is entered, a line through it, and so on.
        for number, stop in enumerate(stops):
            if number % 2:
                points.append(at(stop))
                codes.append(Path.LINETO)
            else:
                middle = (here.along + stop.along) / 2
                points += [at(Point(middle, here.across)), at(Point(middle, stop.across)), at(stop)]
                codes += [Path.CURVE4] * 3
            here = stop
        heads.append([at(tip), at(Point(here.along, here.across - _ARROW_HALF)),
                      at(Point(here.along, here.across + _ARROW_HALF))])
    if points:
        axes.add_patch(PathPatch(Path(points, codes), facecolor="none", edgecolor=_LINES, linewidth=0.9, zorder=1))
        axes.add_collection(PolyCollection(heads, facecolors=_LINES, edgecolors="none", zorder=1))


def _draw_nodes(axes: Axes, nodes: Sequence[_Node], middles: Sequence[tuple[float, float]]) -> None:
    """Draw boxes and what stands in them, the name in bold."""
    from matplotlib.patches import FancyBboxPatch

    for node, (x, y) in zip(nodes, middles, strict=True):
        width, height = node.size
        corner = 0.05 if node.layer else height / 2
        axes.add_artist(FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle=f"round,pad=0,rounding_size={corner}", zorder=2,
            facecolor=node.colour, edgecolor="#444444" if node.layer else "#999999", linewidth=0.9,
            linestyle="--" if node.in_place else "-"))
        lines = node.text.split("\n")
        for number, line in enumerate(lines):
            axes.text(x, y + (number - (len(lines) - 1) / 2) * _LINE, line, family=_FONT, size=_FONT_POINTS,
                      weight="bold" if node.layer and number == 0 else "normal", color="#1c1c1c", parse_math=False,
                      ha="center", va="center", zorder=3)


def _same_each_time(ext: str) -> dict[str, Any]:
    """Settings that keep the day out of the file, so that a picture that did not change is the same file."""
    dates = {"svg": "Date", "pdf": "CreationDate"}
    return {"metadata": {dates[ext]: None}} if ext in dates else {}
