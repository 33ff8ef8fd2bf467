"""What FPGPT's kernel in ``hls/fpgpt_conv`` is compiled for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..errors import DataError, UnsupportedError
from ..gemm.conv_sizes import ConvSizes
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.conv_roles import conv_roles, line_buffer
from ..latency.integers import require_whole
from ..latency.resources import conv_words
from ..precision.formats import NumberFormat, number_format
from .conv_parameters import LAYOUT, conv_parameters
from .gemm_design import config_header

# Beyond what an int of the kernel counts.
_INT_END = 1 << 31


@dataclasses.dataclass(frozen=True)
class ConvDesign(ConvSizes):
    """One configuration of the kernel: its sizes, see `ConvSizes`, and a number format; `for_passes` finds them.

    Parameters
    ----------
    precision : name of the number format

    Raises
    ------
    UnsupportedError : sizes or a number format that the kernel is not made for
    """

    precision: str = "fp32"

    kind: ClassVar[str] = "conv"
    kernel: ClassVar[str] = "fpgpt_conv"
    # Its four sums give an addition four cycles, which the thesis's design has at this clock (section 5.6.1).
    fastest_hz: ClassVar[float] = 100e6

    def __post_init__(self) -> None:
        super().__post_init__()
        number_format(self.precision)

    @classmethod
    def of(cls, sizes: ConvSizes, precision: str) -> ConvDesign:
        """The design of some sizes."""
        return cls(**sizes.fields(), precision=precision)

    @classmethod
    def for_passes(cls, x: int, y: int, passes: Iterable[tuple[ConvolutionGeometry, Pass]], precision: str = "fp32",
                   port_bits: int = 512) -> ConvDesign:
        """The least design of X columns and Y rows that computes all passes given (Eq. 5.14 to 5.16).

        Raises
        ------
        UnsupportedError : as `ConvDesign`; no pass, or a convolution that has not two spatial axes
        """
        require_whole("FPGPT's kernel", 1, x=x, y=y)
        words = conv_words(passes, x, y, max(1, port_bits // (8 * number_format(precision).storage_dtype.itemsize)))
        return cls(x, y, words.z, words.line // 2, words.kern // y, words.out // x, port_bits, precision)

    @property
    def sizes(self) -> ConvSizes:
        """What a manifest says of it, besides the number format."""
        return ConvSizes(**self.fields())

    @property
    def name(self) -> str:
        """Name of folders and libraries that are made of it: ``conv_16x16_fp32``."""
        return f"conv_{self.x}x{self.y}_{self.precision}"

    @property
    def format(self) -> NumberFormat:
        """The number format."""
        return number_format(self.precision)

    @property
    def band(self) -> int:
        """BAND: words of a beat of INP and KERN."""
        return self.port_bits // (8 * self.format.storage_dtype.itemsize)

    def require_fits(self, geometry: ConvolutionGeometry, pass_: Pass) -> None:
        """Refuse a pass for which the memories are too small, or which an int of the kernel cannot count.

        Raises
        ------
        UnsupportedError : what it needs, and what there is
        """
        r = conv_roles(geometry, pass_)
        z, z_channel = (int(size) for size in line_buffer(r, self.x))
        sets, blocks = -(-r.positions // self.x), -(-r.kern_n // self.y)
        if r.sums_up:
            kern, out = 2 * -(-r.stored_products // self.y) * self.y, r.out_n * r.out_c * sets
        else:
            kern, out = blocks * r.stored_products, 2 * self.y * sets
        for name, needed, held in (("z", z, self.z), ("line_words", -(-z_channel // self.z) * self.z, self.line_words),
                                   ("kern_words", kern, self.kern_words), ("out_words", out, self.out_words)):
            if needed > held:
                raise UnsupportedError(f"{self.name}: {pass_.value} of a convolution of {_shape(geometry)} needs "
                                       f"{name}={needed}, and the design has {held}; build one for all convolutions "
                                       "that it is to compute: barista bitstream build --array "
                                       f"{self.x},{self.y} --model FILE")
        p = conv_parameters(geometry, pass_, self.x)
        # The farthest that places of positions move, beyond INP and beyond the last set.
        rows = abs(p.pad_h) + (p.out_h + self.x // p.out_w + 2) * p.step_h + r.kern_dilated[0]
        columns = abs(p.pad_w) + 2 * (p.out_w + self.x) * p.step_w + r.kern_dilated[1]
        largest = max(geometry.batch * (p.inp_a_next or p.inp_n_next), r.kern_words,
                      geometry.batch * geometry.out_channels * geometry.pixels,
                      geometry.batch * geometry.in_channels * r.inp[0] * r.inp[1], rows * p.inp_w + columns,
                      r.products * sets + self.y, r.batches * blocks * sets * r.inp_c)
        if largest >= _INT_END:
            raise UnsupportedError(f"{self.name}: {pass_.value} of a convolution of {_shape(geometry)} counts to "
                                   f"{largest}, and the kernel counts to {_INT_END - 1}; take smaller batches")

    def config(self) -> str:
        """The text of ``config.h``, which the kernel includes."""
        values = {"BETA_LAYOUT": LAYOUT, "PRECISION": self.format.bits,
                  "ARRAY_X": self.x, "ARRAY_Y": self.y, "ARRAY_Z": self.z,
                  "LINE_WORDS": self.line_words, "KERN_WORDS": self.kern_words, "OUT_WORDS": self.out_words,
                  "PORT_BITS": self.port_bits}
        return config_header(self.name, values)

    def to_json(self) -> dict[str, Any]:
        """The design as JSON has it."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str) -> ConvDesign:
        """Read what `to_json` gave.

        Parameters
        ----------
        where : what it stands in, for messages

        Raises
        ------
        DataError : fields that are missing, unknown or senseless
        UnsupportedError : see `ConvDesign`
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, Mapping) or sorted(fields) != sorted(["kind", *known]):
            raise DataError(f"{where}: the design of a convolution array has the fields kind, {', '.join(known)}, this "
                            f"is {fields!r}; write it again")
        sizes = {name: fields[name] for name in known if name != "precision"}
        if (fields["kind"] != cls.kind or not isinstance(fields["precision"], str)
                or not all(type(size) is int for size in sizes.values())):
            raise DataError(f"{where}: a design of kind {cls.kind!r} with whole numbers and the name of a precision is "
                            f"expected, this is {dict(fields)!r}; write it again")
        return cls(precision=fields["precision"], **sizes)


def _shape(g: ConvolutionGeometry) -> str:
    """What a message calls a convolution."""
    return f"{'x'.join(map(str, g.x_shape))} with {'x'.join(map(str, g.w_shape))}"
