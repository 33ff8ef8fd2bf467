"""What op sets make: a class for each kind of primitive, which says what running it does.

Conventions of every primitive

- Arrays are C order, NCHW; all tensors of one primitive have the op set's dtype.
- Gradients of parameters are *added to* (Caffe accumulates them over ``iter_size``
  and over shared layers); gradients of bottoms are *overwritten*.  What is added to memory
  that was cleared overwrites it, see `Tensor.accumulate`.
- Outputs may share memory with inputs only where the docstring says "in place".  A primitive therefore
  asks for the arrays that it reads before those that it writes.
- NaN passes through: a maximum or a pooled window with a NaN in it is NaN.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blob import Space, Tensor
from ..gemm.shapes import Pass


class Primitive(abc.ABC):
    """One computation at fixed shapes.

    Attributes
    ----------
    space : memory in which it computes
    variant : which way was chosen, for the placement report
    workspace_bytes : memory that it alone holds beyond its arguments; where it is made of primitives, these say it
    scratch_bytes : memory in which it works while it runs, of what the primitives of its op set use in turn
    resolution : relative step of the numbers that it multiplies, where coarser than the dtype's; else 0
    """

    space: Space
    variant: str = ""
    workspace_bytes: int = 0
    scratch_bytes: int = 0
    resolution: float = 0.0


class Elementwise(Primitive):
    """A compiled element-wise program (see `program`); in place where the program allows it."""

    @abc.abstractmethod
    def run(self, tensors: Mapping[str, Tensor], **scalars: float) -> None:
        """Run on `tensors` by name, all of the count given when it was made; those it does not name are ignored."""


class ElementwiseGroup(Primitive):
    """One compiled element-wise program for several sets of tensors, each set of a count of its own."""

    @abc.abstractmethod
    def run(self, sets: Sequence[Mapping[str, Tensor]], **scalars: float) -> None:
        """Run on each of `sets`, as many as there were counts and in their order; no two write the same memory."""


class Gemm(Primitive):
    """C(M, N) = alpha op(A)(M, K) op(B)(K, N) + bias(N) + beta C(M, N), row-major; the bias is added to each row."""

    @abc.abstractmethod
    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
            bias: Tensor | None = None) -> None:
        """`beta` = 0 overwrites C whatever it held (NaN included)."""


class Convolution(Primitive):
    """The three passes of a convolution x(N, C, *I), w(D, C/g, *k) -> y(N, D, *O)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        """y = x * w + bias(D), or with `rectify` max(that, 0), so that a ReLU behind it costs nothing."""

    @abc.abstractmethod
    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        """dw += the gradient with respect to w."""

    @abc.abstractmethod
    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        """dx = the gradient with respect to x; it is also Deconvolution's forward pass."""

    def mixes(self, pass_: Pass) -> bool:
        """Whether results of a pass take rounding from their neighbours, as Winograd's do."""
        return False


class Broadcast(Primitive):
    """A vector v(axis) against x(outer, axis, inner): Bias, Scale, and biases of other layers."""

    @abc.abstractmethod
    def add(self, x: Tensor, v: Tensor, y: Tensor) -> None:
        """y = x + v; in place."""

    @abc.abstractmethod
    def multiply(self, x: Tensor, v: Tensor, y: Tensor, bias: Tensor | None = None,
                 saved: Tensor | None = None) -> None:
        """y = x * v (+ bias, a vector too); in place, where `saved` can take a copy of x."""

    @abc.abstractmethod
    def sum(self, dy: Tensor, dv: Tensor) -> None:
        """dv += sum of dy over outer and inner."""

    @abc.abstractmethod
    def gradients(self, dy: Tensor, x: Tensor, v: Tensor, dx: Tensor | None, dv: Tensor | None,
                  dbias: Tensor | None) -> None:
        """Of `multiply`, those that are asked for: dx = dy * v, in place; dv += sum of dy * x; dbias += sum of dy."""


class Pooling(Primitive):
    """Maximum or average pooling; a maximum remembers where it came from until `backward`."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        """y = the pooled x; `mask` (as y) takes the index h*W+w of each maximum, as a number."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient; for a maximum it goes to the first of equal elements."""


class StochasticPooling(Primitive):
    """Pooling that draws one element of each window in proportion to its value (Zeiler and Fergus 2013).

    The numbers are drawn on the host, so every op set draws the same elements.
    """

    @abc.abstractmethod
    def forward_train(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        """y = the first element of each window up to which the sum reaches u * the window's sum, 0 < u <= 1.

        That is the first of a window of zeros.  Where negative values keep the sum below, it is the first too.
        """

    @abc.abstractmethod
    def backward_train(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient, which goes to the elements that the last `forward_train` drew."""

    @abc.abstractmethod
    def forward_test(self, x: Tensor, y: Tensor) -> None:
        """y = sum of x^2 / sum of x over each window: the mean of what `forward_train` draws; 0 for zeros."""

    @abc.abstractmethod
    def backward_test(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient of `forward_test`."""


class LRN(Primitive):
    """Local response normalisation (Krizhevsky et al. 2012, section 3.3)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y = x * (k + alpha/n * window sum of x^2)^-beta."""

    @abc.abstractmethod
    def backward(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        """dx from x and dy of the last `forward`."""


class BatchNorm(Primitive):
    """Normalisation over outer and inner of x(outer, axis, inner) (Ioffe and Szegedy 2015)."""

    @abc.abstractmethod
    def forward_train(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        """Take mean and (biased) variance of x, store them, and normalise; in place.

        Where it is not in place x must stay as it is until `backward_train`.
        """

    @abc.abstractmethod
    def forward_test(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        """Normalise with the given mean and variance; in place."""

    @abc.abstractmethod
    def backward_train(self, dy: Tensor, dx: Tensor) -> None:
        """The gradient of the last `forward_train`; in place."""

    @abc.abstractmethod
    def backward_test(self, dy: Tensor, dx: Tensor) -> None:
        """The gradient of the last `forward_test`; in place."""


class UnitLength(Primitive):
    """x(outer, axis, inner) divided by its length along the axis."""

    @abc.abstractmethod
    def forward(self, x: Tensor, u: Tensor) -> None:
        """u = x / sqrt(sum of x^2 over the axis + eps); in place."""

    @abc.abstractmethod
    def backward(self, u: Tensor, du: Tensor, dx: Tensor) -> None:
        """dx from the u of the last `forward` and its gradient; in place (du, dx)."""


class PReLU(Primitive):
    """y = max(x, 0) + slope * min(x, 0), slope(axis) of x(outer, axis, inner) (He et al. 2015)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, slope: Tensor, y: Tensor) -> None:
        """In place."""

    @abc.abstractmethod
    def grad_input(self, x: Tensor, slope: Tensor, dy: Tensor, dx: Tensor) -> None:
        """In place (dy, dx)."""

    @abc.abstractmethod
    def grad_slope(self, x: Tensor, dy: Tensor, dslope: Tensor) -> None:
        """dslope += ..."""


class Dropout(Primitive):
    """Dropout; the mask is drawn on the host, so every op set drops the same elements."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        """y = x * mask / (1 - ratio); in place."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = dy * mask / (1 - ratio) with the mask of the last `forward`; in place."""


class Softmax(Primitive):
    """Softmax over the axis of x(outer, axis, inner)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y = exp(x - max) / sum; in place."""

    @abc.abstractmethod
    def backward(self, y: Tensor, dy: Tensor, dx: Tensor) -> None:
        """dx = y * (dy - sum(dy * y)); in place (dy, dx)."""


class Loss(Primitive):
    """A scalar loss of a prediction and a target, normalised as it was made to be."""

    @abc.abstractmethod
    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        """loss() = the normalised loss."""

    @abc.abstractmethod
    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        """dx = loss_weight() * the gradient of the last `forward` with respect to x."""


class MarginLoss(Primitive):
    """A loss that is a function of margins, which it leaves where the caller wants them."""

    @abc.abstractmethod
    def forward(self, x: Tensor, target: Tensor, margins: Tensor, loss: Tensor) -> None:
        """margins (as x) and loss() = their normalised sum."""

    @abc.abstractmethod
    def backward(self, target: Tensor, loss_weight: Tensor, margins: Tensor) -> None:
        """Overwrite the margins of the last `forward` by loss_weight() * the gradient with respect to x."""


class InfogainLoss(Primitive):
    """A loss of probabilities x(outer, axis, inner) whose terms a matrix gains(axis, axis) weighs."""

    @abc.abstractmethod
    def forward(self, x: Tensor, target: Tensor, gains: Tensor, loss: Tensor) -> None:
        """loss() = -the sum of gains(target, k) log(x_k) over the classes k and all places, normalised."""

    @abc.abstractmethod
    def backward(self, x: Tensor, target: Tensor, gains: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        """dx = loss_weight() * the gradient of the last `forward` with respect to the input of x's softmax."""


class Accuracy(Primitive):
    """Share of rows whose label is among the top k of x(outer, axis, inner)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, labels: Tensor, accuracy: Tensor, per_class: Tensor | None) -> None:
        """accuracy() and, where asked, per_class(axis)."""


class Detection(Primitive):
    """Boxes with labels and scores from predictions for priors, as a `DetectionRule` says (Liu et al. 2016, SSD)."""

    @abc.abstractmethod
    def find(self, locations: Tensor, confidences: Tensor, priors: Tensor) -> npt.NDArray[Any]:
        """Rows (image, label, score, xmin, ymin, xmax, ymax) on the host, since their number is not known before.

        They stand by image, label and falling score; where there is none at all, one of -1 behind the number of each
        image.  A prior without a size raises DataError where boxes are relative to it.
        """


class Combine(Primitive):
    """Sum (with coefficients), product or maximum of tensors of one shape."""

    @abc.abstractmethod
    def forward(self, xs: Sequence[Tensor], y: Tensor) -> None:
        """y = the combination; y may lie on one of xs for a sum or a product."""

    @abc.abstractmethod
    def backward(self, index: int, xs: Sequence[Tensor], y: Tensor, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient with respect to xs[index]."""


class Join(Primitive):
    """Concatenation along the middle axis: parts (outer, size_i, inner) and a whole (outer, sum, inner)."""

    @abc.abstractmethod
    def join(self, parts: Sequence[Tensor], whole: Tensor) -> None:
        """Write the parts side by side into the whole."""

    @abc.abstractmethod
    def split(self, whole: Tensor, parts: Sequence[Tensor | None]) -> None:
        """Write each part of the whole that is not None."""


class Rearrange(Primitive):
    """Elements of a tensor in other places, as a `StridedGeometry` says."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y = the elements of x that it takes."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the sum of dy over the places where an element went; 0 where it went nowhere."""


class Gather(Primitive):
    """Rows of table(rows, inner) picked by number, at most `count` at a time; `indices` are numbers of the dtype.

    Fractions of an index are cut off.  An index that is no row raises DataError; where a device cannot raise, its row
    becomes NaN and gives no gradient.
    """

    @abc.abstractmethod
    def gather(self, table: Tensor, indices: Tensor, y: Tensor) -> None:
        """y[i] = table[indices[i]]."""

    @abc.abstractmethod
    def scatter(self, dy: Tensor, indices: Tensor, dtable: Tensor) -> None:
        """dtable[indices[i]] += dy[i]; an index may be there several times."""


class Unfold(Primitive):
    """The columns of a convolution (im2col), y(N, C * prod(kernel), *O) from x(N, C, *I)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y = what each window sees, 0 in the padding."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the sum of dy over the windows that see an element (col2im)."""


class ArgMax(Primitive):
    """The top k along the middle axis of x(outer, axis, inner); of equals the last comes first, and NaN before all."""

    @abc.abstractmethod
    def forward(self, x: Tensor, indices: Tensor | None, values: Tensor | None) -> None:
        """Those asked for, (outer, k, inner), the largest first; indices are numbers of the dtype."""


class Lookup(Primitive):
    """Elements of a tensor picked axis by axis, as a `LookupGeometry` says."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y = the elements of x that it takes, and the geometry's number where it takes none."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the sum of dy over the places where an element went; 0 where it went nowhere."""


class Fold(Primitive):
    """Maximum, minimum or product over the middle axis of x(outer, axis, inner)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y(outer, inner) = the fold."""


class MatMul(Primitive):
    """Products C = A B of stacks of matrices, which NumPy's rules broadcast together; either may lie transposed."""

    @abc.abstractmethod
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> None:
        """c = the products."""

    @abc.abstractmethod
    def grad_a(self, b: Tensor, dc: Tensor, da: Tensor) -> None:
        """da = the gradient, summed over the axes along which A was repeated."""

    @abc.abstractmethod
    def grad_b(self, a: Tensor, dc: Tensor, db: Tensor) -> None:
        """db = the gradient, summed over the axes along which B was repeated."""


class WindowPooling(Primitive):
    """Maximum or mean over windows of any number of axes; a maximum remembers where it came from until `backward`."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor, indices: Tensor | None = None) -> None:
        """y = the pooled x; `indices` (as y) takes where in x each maximum lies, -1 for nowhere."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient; for a maximum it goes to the first of equal elements."""


class Interpolation(Primitive):
    """Planes x(planes, H, W) resampled along both axes, as two `Taps` say."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> None:
        """y(planes, Ho, Wo) = the weighted sums."""

    @abc.abstractmethod
    def backward(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient; 0 where no output looks."""


@dataclasses.dataclass(frozen=True)
class LossRule:
    """How a loss is counted and normalised.

    Parameters
    ----------
    normalization : FULL, VALID, BATCH_SIZE or NONE, as in Caffe's LossParameter
    ignore_label : targets of this value count nothing, or None
    """

    normalization: str = "VALID"
    ignore_label: int | None = None


@dataclasses.dataclass(frozen=True)
class DetectionRule:
    """How predictions become detections.

    Parameters
    ----------
    classes : their number, that of the background included
    background : the class that is no detection; a number that is no class where all are
    shared : whether a prior has one box for all classes, or one for each
    code : what locations are: CORNER, CENTER_SIZE or CORNER_SIZE, as in SSD's PriorBoxParameter
    variance_in_target : whether locations have been multiplied by the variances already
    least_score : only scores above it count; None for all
    most_overlap : overlap (Jaccard) with a better box of the class beyond which a box falls
    eta : factor on `most_overlap` after each box that stays, while it is above a half
    most_of_class, most_of_image : boxes of a class that are looked at, and of an image that stay; None for all
    """

    classes: int
    background: int
    shared: bool
    code: str
    variance_in_target: bool
    least_score: float | None
    most_overlap: float
    eta: float
    most_of_class: int | None
    most_of_image: int | None

    @property
    def boxes(self) -> int:
        """Boxes that are predicted for each prior."""
        return 1 if self.shared else self.classes
