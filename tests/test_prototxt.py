"""Reading and writing nets and solvers: contents, messages with their places, damaged files."""

from __future__ import annotations

import logging
import os
import re
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import BaristaError, PrototxtError
from barista.frontends.prototxt import (
    LARGEST_MESSAGE_BYTES,
    parse_net,
    parse_solver,
    read_binary_net,
    read_net,
    read_solver,
    to_text,
    write_text,
)
from barista.proto.caffe_pb2 import BlobProto, Datum, FillerParameter, NetParameter, SolverParameter

GOLDEN = Path(__file__).parent / "golden"
CAFFEMODEL = GOLDEN / "solvers" / "sgd_fixed_iter_8.caffemodel"
SOLVERSTATE = GOLDEN / "solvers" / "sgd_fixed_iter_8.solverstate"
HDF5_MODEL = GOLDEN / "solvers" / "sgd_fixed_iter_8.caffemodel.h5"
MEAN = GOLDEN / "data" / "mnist_mean.binaryproto"

NET = '''name: "small"  # two layers
layer {
  name: "data" type: "Input" top: "data"
  input_param { shape { dim: [2, 3, 8, 8] } }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param {
    num_output: 4
    kernel_size: 3
    weight_filler < type: "gaussian"; std: 1e-2 >
    engine: CAFFE
  }
}
'''
SOLVER = 'net: "net.prototxt"\nbase_lr: 0.01\nmax_iter: 8\nlr_policy: "fixed"\nsolver_mode: CPU\n'


def failure(call: Callable[..., object], *arguments: object, **options: object) -> str:
    """The message with which `call` refuses its arguments."""
    with pytest.raises(PrototxtError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def conv(line: str) -> str:
    """A net whose line 5 is `line`, inside convolution_param."""
    return f'name: "n"\nlayer {{\n  type: "Convolution"\n  convolution_param {{\n    {line}\n  }}\n}}\n'


# ---- reading

def test_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    net = read_net(path)
    assert net == parse_net(NET) == text_format.Parse(NET, NetParameter())
    assert list(net.layer[0].input_param.shape[0].dim) == [2, 3, 8, 8]


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbf" + NET.replace("\n", "\r\n").encode())
    assert read_net(path) == parse_net(NET)


def test_what_is_read_is_upgraded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = 'layers { name: "r" type: RELU bottom: "x" top: "x" }'
    path = tmp_path / "old.prototxt"
    path.write_text(old)
    binary = tmp_path / "old.caffemodel"
    binary.write_bytes(text_format.Parse(old, NetParameter()).SerializeToString())
    with caplog.at_level(logging.INFO, "barista"):
        nets = [read_net(path), parse_net(old), read_binary_net(binary), read_net(binary)]
    assert all(net.layer[0].type == "ReLU" and not net.layers for net in nets)
    assert f"{path}: upgraded 1 layer from the V1 form" in caplog.messages
    assert parse_solver("solver_type: ADAM").type == "Adam"


def test_caffemodel_of_caffe_is_read() -> None:
    net = read_binary_net(CAFFEMODEL)
    assert sum(len(layer.blobs) for layer in net.layer) >= 2
    assert net == read_net(CAFFEMODEL)


def test_binary_solver_is_read(tmp_path: Path) -> None:
    path = tmp_path / "solver.binaryproto"
    solver = parse_solver(SOLVER + 'snapshot_prefix: "s"')
    path.write_bytes(solver.SerializeToString())
    assert read_solver(path) == solver


def test_snapshot_prefix_comes_from_the_solvers_name(tmp_path: Path) -> None:
    path = tmp_path / "my.solver.prototxt"
    for line, expected in (("", "my.solver"), (f'snapshot_prefix: "{tmp_path}"', "my.solver"),
                           (f'snapshot_prefix: "{tmp_path}/x"', "x")):
        path.write_text(SOLVER + line)
        assert read_solver(path).snapshot_prefix == str(tmp_path / expected)


# ---- writing

def printed_messages(log: str) -> list[tuple[type[Message], str]]:
    """The nets and solvers in a log of Caffe, as it printed them: lines without the head of a log line."""
    found: list[tuple[type[Message], str]] = []
    for block in re.split(r"^(?=[IWEF]\d{8} )", log, flags=re.MULTILINE):
        head, _, body = block.partition("\n")
        if body:
            found.append((SolverParameter if "solver from parameters" in head else NetParameter, body))
    return found


@pytest.mark.parametrize(("name", "kinds"), [
    ("train.log", [SolverParameter, NetParameter, NetParameter]),
    ("test.log", [NetParameter]), ("time.log", [NetParameter])])
def test_text_looks_as_caffe_prints_it(name: str, kinds: list[type[Message]]) -> None:
    messages = printed_messages((GOLDEN / "logs" / name).read_text())
    assert [kind for kind, _ in messages] == kinds
    for kind, printed in messages:
        assert to_text(text_format.Parse(printed, kind())) == printed


@pytest.mark.parametrize(("value", "text"), [
    (1, "1"), (0.1, "0.1"), (-0.0, "-0"), (1e-5, "1e-05"), (1e10, "1e+10"), (0.00390625, "0.00390625"),
    (16777216, "16777216"), (0.1234567, "0.1234567"), (3.4028234663852886e38, "3.4028235e+38"),
    (float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan")])
def test_numbers_are_as_short_as_they_can_be(value: float, text: str) -> None:
    assert to_text(FillerParameter(value=value)) == f"value: {text}\n"


def test_strings_are_escaped(tmp_path: Path) -> None:
    net = NetParameter(name='a "quoted"\n\\ caf\N{LATIN SMALL LETTER E WITH ACUTE}\t')
    assert to_text(net) == 'name: "a \\"quoted\\"\\n\\\\ caf\\303\\251\\t"\n'
    write_text(net, tmp_path / "net.prototxt")
    assert read_net(tmp_path / "net.prototxt") == net
    assert to_text(Datum(data=b"\x00\xff", encoded=True)) == 'data: "\\000\\377"\nencoded: true\n'
    assert to_text(BlobProto(double_data=[0.1, 1 / 3])) \
        == "double_data: 0.1\ndouble_data: 0.3333333333333333\n"


def test_write_to_nowhere(tmp_path: Path) -> None:
    assert "cannot be written" in failure(write_text, NetParameter(), tmp_path / "no" / "net")


# Not up to the largest float32: the Python implementation of protobuf 4.21 reads that as infinity.
@given(st.floats(-2.0**127, 2.0**127, width=32))
@settings(max_examples=200, deadline=None)
def test_numbers_come_back(value: float) -> None:
    message = FillerParameter(value=value)
    assert text_format.Parse(to_text(message), FillerParameter()) == message


# ---- messages, each with its place

@pytest.mark.parametrize(("line", "expected"), [
    ("kernal_size: 3", "5:5: unknown field 'kernal_size' in ConvolutionParameter; did you mean 'kernel"),
    ("pad: 1 kernal_size: 3", "5:12: unknown field 'kernal_size'"),
    ("lr_mult: 3", "5:5: unknown field 'lr_mult' in ConvolutionParameter, which has axis, bias_filler"),
    ('num_output: "ten"', "5:17: ConvolutionParameter.num_output takes an integer from 0 on, not \"ten\""),
    ("num_output: -1", "not '-1'; the range is 0 to 4294967295"),
    ("num_output: 4294967296", "not '4294967296'; the range is 0 to 4294967295"),
    ("num_output: 1.5", "takes an integer from 0 on, not '1.5'"),
    ("kernel_size: [3, x]", "5:22: ConvolutionParameter.kernel_size takes an integer from 0 on, not 'x'"),
    ("bias_term: maybe", "5:16: ConvolutionParameter.bias_term takes true or false, not 'maybe'"),
    ("engine: CUDN", "5:13: ConvolutionParameter.engine cannot be 'CUDN'; did you mean 'CUDNN'?"),
    ("engine: XYZ", "engine cannot be 'XYZ'; known are DEFAULT, CAFFE and CUDNN"),
    ("engine: 9", "engine cannot be '9'; known are DEFAULT, CAFFE and CUDNN"),
    ("weight_filler: 3", "5:20: ConvolutionParameter.weight_filler takes a message (FillerParameter)"),
    ("weight_filler { type: xavier }", '5:27: FillerParameter.type takes a string in quotes, not \'xavier\'; '
                                       'write it in quotes: "xavier"'),
    ('weight_filler { std: "1" }', "5:26: FillerParameter.std takes a number, not \"1\""),
    ("num_output { dim: 3 }", "5:5: ConvolutionParameter.num_output takes an integer from 0 on, not a mess"),
    ("num_output 3", "5:16: expected ':' or '{' after num_output"),
    ("num_output: ", "6:3: num_output has no value"),
    ("num_output: 3 num_output: 4", "ConvolutionParameter.num_output is given twice; it can"),
    ('weight_filler { type: "x }', "5:27: the string that \" opens is not closed on its line"),
    ("num_output: 3 // channels", "5:19: unexpected character '/'; a comment begins with '#'"),
    ("weight_filler < std: 1 }", "5:28: '}' cannot close the '<' of line 5; expected '>'"),
    ("= 3", "5:5: unexpected character '='"),
    ("{ }", "5:5: expected the name of a field, not '{'"),
    ("[a.b]: 3", "5:5: unknown field '[a.b]' in ConvolutionParameter"),
])
def test_mistake_in_a_field(line: str, expected: str) -> None:
    message = failure(parse_net, conv(line), "net.prototxt")
    assert re.match(r"net\.prototxt:[56]:[1-9]\d*: ", message)
    assert expected in message


def test_error_holds_its_place() -> None:
    with pytest.raises(PrototxtError) as caught:
        parse_net(conv("kernal_size: 3"), "net.prototxt")
    assert (caught.value.file, caught.value.line, caught.value.column) == ("net.prototxt", 5, 5)


def test_field_at_the_wrong_level() -> None:
    assert "it is a field of convolution_param and pooling_param" \
        in failure(parse_net, "layer { kernel_size: 3 }")


def test_missing_brace() -> None:
    text = 'layer {\n  name: "a"\n  relu_param { negative_slope: 1\n}\nlayer { name: "b" }\n'
    assert failure(parse_net, text, "net.prototxt") == (
        "net.prototxt:5:1: unknown field 'layer' in LayerParameter; "
        "it is a field of NetParameter: is a '}' missing before it?")
    assert failure(parse_net, 'name: "a"\nlayer {\n  name: "b"\n') \
        == "<text>:2:7: the '{' of layer is never closed; add a '}'"
    assert failure(parse_net, 'layer { }\n }') == "<text>:2:2: '}' closes nothing; remove it"
    assert failure(parse_net, "layer: [ { }") == "<text>:1:8: the '[' of layer is never closed; add a ']'"


def test_missing_required_field(tmp_path: Path) -> None:
    text = 'layer { name: "a" }\nlayer {\n  name: "b"\n  clip_param { min: 1 }\n}'
    assert failure(parse_net, text) == "<text>:4:3: ClipParameter needs the field 'max', which is missing"
    net = NetParameter()
    net.layer.add().clip_param.min = 1
    path = tmp_path / "x.caffemodel"
    path.write_bytes(net.SerializePartialToString())
    assert "the required field layer[0].clip_param.max is missing" in failure(read_binary_net, path)


def test_solver_as_net_and_net_as_solver() -> None:
    for ignore in (False, True):
        assert failure(parse_net, SOLVER, "s", ignore_unknown_fields=ignore) \
            == "s:1:1: this is a solver (SolverParameter), where a net (NetParameter) is expected"
        assert failure(parse_solver, NET, "n", ignore_unknown_fields=ignore) \
            == "n:1:1: this is a net (NetParameter), where a solver (SolverParameter) is expected"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_text_without_fields(text: str) -> None:
    assert "no field is set; expected a net (NetParameter)" in failure(parse_net, text)


def test_string_that_is_not_utf8() -> None:
    assert re.search(r"^<text>:1:\d+: Couldn't parse string", failure(parse_net, 'name: "\\377"'))


# ---- unknown fields

FORKED = '''layer {
  name: "a"
  spatial { kernel { size: 3 text: "} # no" } list: [1, 2] more < a: -1e-3 > }
  relu_param { slope_mode: FAST, negative_slope: 0.5 }
}
layer { spatial: "again" 'and again'; name: "b" spatial { } }
future: [{ a: 1 }, { }]
'''


def test_unknown_fields_are_skipped_with_a_warning_each(caplog: pytest.LogCaptureFixture) -> None:
    net = parse_net(FORKED, "fork.prototxt", ignore_unknown_fields=True)
    assert net == parse_net('layer { name: "a" relu_param { negative_slope: 0.5 } } layer { name: "b" }')
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert caplog.messages == [
        "fork.prototxt:3: unknown field LayerParameter.spatial is ignored (and 2 times more)",
        "fork.prototxt:4: unknown field ReLUParameter.slope_mode is ignored",
        "fork.prototxt:7: unknown field NetParameter.future is ignored"]


def test_unknown_fields_are_refused_otherwise(tmp_path: Path) -> None:
    assert "<text>:3:3: unknown field 'spatial' in LayerParameter" in failure(parse_net, FORKED)
    path = tmp_path / "fork.prototxt"
    path.write_text(FORKED)
    assert len(read_net(path, ignore_unknown_fields=True).layer) == 2
    path.write_text(SOLVER + "turbo: true")
    assert read_solver(path, ignore_unknown_fields=True).max_iter == 8
    assert f"{path}:6:1: unknown field 'turbo' in SolverParameter" in failure(read_solver, path)


def test_other_mistakes_stay_mistakes_among_unknown_fields() -> None:
    text = 'turbo: true\nlayer { name: 3 }\n'
    assert failure(parse_net, text, ignore_unknown_fields=True).startswith(
        "<text>:2:15: LayerParameter.name takes a string in quotes, not '3'")
    assert failure(parse_net, "turbo { ", ignore_unknown_fields=True) \
        == "<text>:1:7: the '{' of turbo is never closed; add a '}'"


# ---- files

def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "lenet.prototxt").write_text(NET)
    missing = tmp_path / "lenett.prototxt"
    message = failure(read_net, missing)
    assert message.startswith(f"{missing}: no such file (looked from {os.getcwd()!r}")
    assert message.endswith("did you mean 'lenet.prototxt'?")
    assert f"there is no folder '{tmp_path / 'no'}'" in failure(read_net, tmp_path / "no" / "net")
    assert failure(read_net, tmp_path) \
        == f"{tmp_path}: this is a folder; give a file with a net (NetParameter)"
    assert "cannot be read" in failure(read_net, "a\0b")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert failure(read_net, path) == f"{path}: the file is empty; expected a net (NetParameter)"
    assert failure(read_binary_net, path) == f"{path}: the file is empty; expected a net (NetParameter)"


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(NET.encode().replace(b"two layers", b"zwei gr\xfcne"))
    assert failure(read_net, path).startswith(
        f"{path}:1:25: neither text nor binary: byte 0xfc is not UTF-8")
    path.write_text(NET, encoding="utf-16")
    assert failure(read_net, path) == f"{path}: the text is UTF-16; save it as UTF-8"


@pytest.mark.parametrize(("path", "what"), [
    (SOLVERSTATE, "a training state (SolverState)"),
    (MEAN, "a single blob, such as a mean image (BlobProto)")])
def test_binary_of_another_kind_is_named(path: Path, what: str) -> None:
    expected = f"{path}: this is {what}, where a net (NetParameter) is expected"
    assert failure(read_binary_net, path) == expected
    assert failure(read_net, path) == expected


def test_caffemodel_as_solver_and_text_as_caffemodel(tmp_path: Path) -> None:
    assert failure(read_solver, CAFFEMODEL) \
        == f"{CAFFEMODEL}: this is a net (NetParameter), where a solver (SolverParameter) is expected"
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    assert "not weights; were model and weights exchanged?" in failure(read_binary_net, path)
    assert "this is an HDF5 file" in failure(read_binary_net, HDF5_MODEL)


def test_truncated_and_damaged_binary(tmp_path: Path) -> None:
    path = tmp_path / "cut.caffemodel"
    path.write_bytes(CAFFEMODEL.read_bytes()[:-7])
    assert "damaged or truncated: protobuf says" in failure(read_binary_net, path)
    path.write_bytes(NetParameter(name="only a name\x01").SerializeToString())
    assert "it has none of the fields layer, layers" in failure(read_net, path)
    path.write_bytes(b"\x0a\x01\xff" + NetParameter(layer=[{}]).SerializeToString())
    assert "the string name is not UTF-8" in failure(read_net, path) \
        or "damaged or truncated" in failure(read_net, path)


def test_unknown_fields_in_binary_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fork.caffemodel"
    net = read_binary_net(CAFFEMODEL)
    path.write_bytes(CAFFEMODEL.read_bytes() + b"\xfa\xff\x03\x02ab" + b"\xa2\x06\x07\n\x01x\xf2\xff\x03\x00")
    assert read_binary_net(path).layer[:-1] == net.layer[:]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{path}: fields that Caffe does not know are ignored: NetParameter 8191, LayerParameter 8190"]


def test_more_than_protobuf_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "large.caffemodel"
    with path.open("wb") as file:
        file.truncate(LARGEST_MESSAGE_BYTES + 1)  # sparse: takes no room
    assert failure(read_binary_net, path) == (
        f"{path}: the file has 2147483648 bytes; protobuf reads less than 2 GiB (2147483647 bytes at most); "
        "keep such weights in HDF5")


# ---- damaged input of any kind raises errors of Barista, and nothing else

PIECES = st.one_of(
    st.sampled_from([*"{}[]<>:;,-\"'#\\\n", "layer", "layers {", "name: ", "type: 4", "input: \"a\"",
                     "input_dim: 1", "\\377", "1e-5", "-", "[a.b/c]", "NaN", "0x", "09",
                     "\x00", "\x1f", "\ud800"]),
    st.text(string.printable, max_size=4), st.text(max_size=3))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def edited(text: str, edits: list[tuple[float, int, str]]) -> str:
    for where, removed, piece in edits:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + removed:]
    return text


@given(st.sampled_from([NET, SOLVER, FORKED, (GOLDEN / "data" / "upgrade_v0.in.prototxt").read_text(),
                        (GOLDEN / "data" / "upgrade_v1.in.prototxt").read_text()]), EDITS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_edited_text(text: str, edits: list[tuple[float, int, str]], ignore: bool) -> None:
    for parse in (parse_net, parse_solver):
        try:
            message = parse(edited(text, edits), ignore_unknown_fields=ignore)
        except BaristaError as error:
            assert str(error)
        else:
            printed = to_text(message)
            assert text_format.Parse(printed, type(message)()) == message or "nan" in printed


@given(st.sampled_from([CAFFEMODEL.read_bytes()[:600], SOLVERSTATE.read_bytes()[:300], NET.encode(), b""]),
       st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.binary(max_size=6)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_edited_bytes(data: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    for where, removed, piece in edits:
        start = int(where * len(data))
        data = data[:start] + piece + data[start + removed:]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for read in (read_net, read_binary_net, read_solver):
            try:
                to_text(read(file.name))
            except BaristaError as error:
                assert str(error).startswith(file.name)


@pytest.mark.parametrize("text", ["a {" * 5000, "[" * 5000, "layer: " + "[" * 5000, "layer {" * 5000])
@pytest.mark.parametrize("ignore", [False, True])
def test_deep_nesting(text: str, ignore: bool) -> None:
    assert failure(parse_net, text, ignore_unknown_fields=ignore).startswith("<text>:1:")


def test_deep_nesting_of_what_is_skipped() -> None:
    text = 'name: "n" ' + "a {" * 5000 + "}" * 5000
    assert parse_net(text, ignore_unknown_fields=True) == NetParameter(name="n")
