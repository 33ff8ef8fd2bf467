"""Detection as in SSD (Liu et al. 2016): PriorBox lays out default boxes, DetectionOutput turns predictions into boxes.

Both come from SSD's fork of Caffe, and "Caffe" below means that fork.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

from ..blob import HOST, Blob
from ..errors import NetError, UnsupportedError
from ..ops.base import DetectionRule
from ..proto.caffe_pb2 import PriorBoxParameter
from .base import Bottoms, Count, Layer, Tops, ZeroGradientLayer, exactly, register

log = logging.getLogger(__name__)

# Aspect ratios closer than this are one.
SAME_RATIO = 1e-6
# Boxes of a PriorBox, which are made one by one; SSD has 24,564 in all for its largest images.
MOST_BOXES = 1_000_000
# Numbers of a detection: image, label, score, xmin, ymin, xmax, ymax.
ROW = 7


@register("PriorBox")
class PriorBox(ZeroGradientLayer):
    """Default boxes of all cells of a feature map, the first bottom, in an image, the second one.

    The top (1, 2, boxes * 4) has the corners xmin, ymin, xmax, ymax in shares of the image, cell after cell, and then
    a variance for each.  A cell has for each min_size a square of it, with max_size a square of sqrt(min * max), and
    a box for each other aspect ratio.  It depends on shapes alone, so that its gradients are 0.

    Caffe: sizes are cut to whole pixels, and flip is on unless it is switched off.
    """

    bottoms = exactly(2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.prior_box_param
        self._check(param)
        self._ratios = [1.0]
        for ratio in param.aspect_ratio:
            if all(abs(ratio - known) >= SAME_RATIO for known in self._ratios):
                self._ratios += [ratio, 1 / ratio] if param.flip else [ratio]
        self._variances = list(param.variance) or [0.1]
        if len(self._variances) == 1:
            self._variances *= 4

    def _check(self, param: PriorBoxParameter) -> None:
        if not param.min_size:
            raise self.error("has no min_size; give at least one, in pixels", NetError)
        if param.max_size and len(param.max_size) != len(param.min_size):
            raise self.error(f"has {len(param.min_size)} min_size and {len(param.max_size)} max_size; give none, or "
                             "one for each min_size", NetError)
        for least, most in zip(param.min_size, param.max_size, strict=False):
            if most <= least:
                raise self.error(f"max_size {most:g} must be greater than its min_size {least:g}", NetError)
        if len(param.variance) not in (0, 1, 4):
            raise self.error(f"has {len(param.variance)} variance; give one for all, or 4 (xmin, ymin, xmax, ymax)",
                             NetError)
        for name in ("min_size", "aspect_ratio", "variance"):
            for value in getattr(param, name):
                if not value > 0:
                    raise self.error(f"{name} {value:g} must be greater than 0", NetError)
        for both, one, other in (("img_size", "img_h", "img_w"), ("step", "step_h", "step_w")):
            apart = param.HasField(one) or param.HasField(other)
            if apart and param.HasField(both):
                raise self.error(f"gives both {both} and {one} or {other}; give one of them", NetError)
            for name in (one, other) if apart else (both,) if param.HasField(both) else ():
                if not getattr(param, name) > 0:
                    raise self.error(f"{name} is {getattr(param, name):g}; give {one} and {other}, both greater than "
                                     f"0, or {both}", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        count = bottom[0].height * bottom[0].width * len(list(self._sizes(self.param.prior_box_param)))
        if count > MOST_BOXES:
            raise self.error(f"would make {count} boxes for the feature map {bottom[0].shape}; the limit is "
                             f"{MOST_BOXES}")
        boxes = [edge for box in self._boxes(*bottom) for edge in box]
        if not boxes:
            raise self.error(f"the feature map {bottom[0].shape} has no cells", NetError)
        top[0].reshape(1, 2, len(boxes))
        self._priors = self.scratch("priors", top[0].shape)
        priors = self._priors.write(HOST)
        priors[0, 0] = boxes
        priors[0, 1] = self._variances * (len(boxes) // 4)
        self._copy = self.ops.elementwise("y = x", ("x", "y"), top[0].count)
        super().reshape(bottom, top)

    def _boxes(self, map_: Blob, image: Blob) -> Iterator[tuple[float, ...]]:
        """Corners of all boxes, cell after cell, row after row."""
        param = self.param.prior_box_param
        height, width = param.img_h or param.img_size, param.img_w or param.img_size
        if not (height and width):
            height, width = image.height, image.width
            if not (height and width):
                raise self.error(f"the image {image.shape} is empty; give img_size, or an image as second bottom")
        step_y, step_x = param.step_h or param.step, param.step_w or param.step
        if not (step_y and step_x):
            step_y, step_x = height / max(map_.height, 1), width / max(map_.width, 1)
        sizes = list(self._sizes(param))
        for row in range(map_.height):
            y = (row + param.offset) * step_y
            for column in range(map_.width):
                x = (column + param.offset) * step_x
                for w, h in sizes:
                    box = ((x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height)
                    yield tuple(min(max(edge, 0.0), 1.0) for edge in box) if param.clip else box

    def _sizes(self, param: PriorBoxParameter) -> Iterator[tuple[float, float]]:
        """Width and height of the boxes of a cell, in pixels."""
        for index, least in enumerate(map(int, param.min_size)):
            yield least, least
            if param.max_size:
                side = math.sqrt(least * int(param.max_size[index]))
                yield side, side
            for ratio in self._ratios[1:]:
                yield least * math.sqrt(ratio), least / math.sqrt(ratio)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._copy.run({"x": self._priors, "y": top[0].value})


@register("DetectionOutput")
class DetectionOutput(Layer):
    """Boxes that were found: of each class the most confident, without those that overlap a better one too much.

    Bottoms are locations (N, boxes * 4), or (N, boxes * num_classes * 4) without share_location, confidences
    (N, boxes * num_classes) and the priors of `PriorBox`; a fourth is ignored.  The top (1, 1, K, 7) has a row
    [image, label, score, xmin, ymin, xmax, ymax] for each detection, by image, label and falling score; K changes
    from pass to pass.

    Caffe: where nothing is found in any image there is a row [image, -1, ...] for each.  The files of detections that
    save_output_param asks for are not written, and a warning says so.
    """

    bottoms = Count(3, 4)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.detection_output_param
        if param.num_classes < 1:
            raise self.error("num_classes is missing; give their number, the background included", NetError)
        if param.save_output_param.output_directory:
            # Published deploy nets of SSD carry it from the net that they were tested with.
            log.warning("%s (%s): save_output_param.output_directory %r asks for files of detections, which this layer "
                        "does not write; where they are wanted, write the rows of its top %r in Python", self.name,
                        self.type, param.save_output_param.output_directory, self.param.top[0])
        if param.visualize:
            raise UnsupportedError(
                f"{self.name} ({self.type}): visualize asks for windows with images, which this layer does not open; "
                f"take it out and draw the boxes of its top {self.param.top[0]!r} in Python")
        nms = param.nms_param
        if not nms.nms_threshold >= 0:
            raise self.error(f"nms_threshold is {nms.nms_threshold:g}; give 0 or more", NetError)
        if not 0 < nms.eta <= 1:
            raise self.error(f"eta is {nms.eta:g}; give more than 0 and at most 1", NetError)
        self._rule = DetectionRule(
            classes=param.num_classes, background=param.background_label_id, shared=param.share_location,
            code=PriorBoxParameter.CodeType.Name(param.code_type),
            variance_in_target=param.variance_encoded_in_target,
            least_score=param.confidence_threshold if param.HasField("confidence_threshold") else None,
            most_overlap=nms.nms_threshold, eta=nms.eta,
            most_of_class=nms.top_k if nms.HasField("top_k") and nms.top_k >= 0 else None,
            most_of_image=param.keep_top_k if param.keep_top_k >= 0 else None)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        rule, prior = self._rule, bottom[2].shape
        if len(prior) < 3 or prior[1] != 2 or prior[2] < 4 or prior[2] % 4 or math.prod(prior[3:]) != 1:
            raise self.error(f"the priors {self.param.bottom[2]} must be (1, 2, boxes * 4), as PriorBox makes them; "
                             f"they have shape {prior}")
        images, priors = bottom[1].shape[0] if bottom[1].shape else 0, prior[2] // 4
        for blob, name, what, each in ((bottom[0], self.param.bottom[0], "locations", rule.boxes * 4),
                                       (bottom[1], self.param.bottom[1], "confidences", rule.classes)):
            if blob.shape[:2] != (images, priors * each) or blob.count != images * priors * each:
                raise self.error(f"the {what} {name} must be {(images, priors * each)}: {each} for each of {priors} "
                                 f"priors in {images} image(s); they have shape {blob.shape}")
        top[0].reshape(1, 1, 1, ROW)
        self._detection = self.ops.detection_output(images, priors, rule)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        rows = self._detection.find(bottom[0].value, bottom[1].value, bottom[2].value)
        top[0].reshape(1, 1, len(rows), ROW)
        top[0].value.assign(rows, self.ops.space)
