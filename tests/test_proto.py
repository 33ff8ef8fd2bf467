"""The formats against the tables of Caffe's and Caffe2's schemas, and the generated modules against the formats."""

from __future__ import annotations

import ast
import ctypes
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from barista.proto import caffe2_pb2, caffe_pb2

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
TABLE, FORKS, CAFFE2 = GOLDEN / "caffe.tsv", GOLDEN / "forks.tsv", GOLDEN / "caffe2.tsv"
MODULES = {"caffe": caffe_pb2, "caffe2": caffe2_pb2}
OURS = {("caffe.SolverParameter.SolverMode", "FPGA", "2")}


def schema(package: str = "caffe") -> FileDescriptorProto:
    proto = FileDescriptorProto()
    MODULES[package].DESCRIPTOR.CopyToProto(proto)
    return proto


def type_name(field: FieldDescriptorProto) -> str:
    return field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type)[len("TYPE_"):].lower()


def option(field: FieldDescriptorProto) -> str:
    """The last column of the table: packed, deprecated, or the default as Python writes its value."""
    if field.options.packed or field.options.deprecated:
        return "packed" if field.options.packed else "deprecated"
    if not field.HasField("default_value"):
        return ""
    text, kind = field.default_value, type_name(field)
    if kind == "float":
        return f"default={ctypes.c_float(float(text)).value!r}"
    if kind == "bool":
        return f"default={text == 'true'}"
    return f"default={text!r}" if kind == "string" or "." in kind else f"default={int(text)}"


def enum_rows(enum: EnumDescriptorProto, scope: str) -> set[tuple[str, ...]]:
    return {(f"{scope}.{enum.name}", value.name, str(value.number)) for value in enum.value}


def schema_rows(proto: FileDescriptorProto) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    fields: set[tuple[str, ...]] = set()
    enums: set[tuple[str, ...]] = set()
    for enum in proto.enum_type:
        enums |= enum_rows(enum, proto.package)
    for message in proto.message_type:
        assert isinstance(message, DescriptorProto)
        assert not message.nested_type and not message.oneof_decl and not message.extension
        scope = f"{proto.package}.{message.name}"
        for enum in message.enum_type:
            enums |= enum_rows(enum, scope)
        for field in message.field:
            label = FieldDescriptorProto.Label.Name(field.label)[len("LABEL_"):].lower()
            fields.add((f"{scope}.{field.name}", str(field.number), label, type_name(field), option(field)))
    return fields, enums


def table_rows(table: Path) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    rows = [tuple(line.split("\t")) for line in table.read_text().splitlines() if not line.startswith("#")]
    enums = {(row[0].removeprefix("enum "), *row[1:]) for row in rows if row[0].startswith("enum ")}
    return {row for row in rows if not row[0].startswith("enum ")}, enums


def test_fields_are_those_of_caffe_and_its_forks() -> None:
    fields, _ = schema_rows(schema())
    (caffe, _), (forks, _) = table_rows(TABLE), table_rows(FORKS)
    assert len(caffe) > 350 and len(forks) > 40
    assert not caffe & forks
    assert fields == caffe | forks


def test_enum_values_are_those_of_caffe_its_forks_and_fpga() -> None:
    _, enums = schema_rows(schema())
    (_, caffe), (_, forks) = table_rows(TABLE), table_rows(FORKS)
    assert len(caffe) > 90
    assert not caffe & (forks | OURS)
    assert enums == caffe | forks | OURS


def test_fields_and_enum_values_are_those_of_caffe2() -> None:
    ours, table = schema_rows(schema("caffe2")), table_rows(CAFFE2)
    assert len(table[0]) == 36 and len(table[1]) == 13
    assert ours == table


@pytest.mark.parametrize("package", MODULES)
def test_syntax_package_and_name(package: str) -> None:
    proto = schema(package)
    assert (proto.package, proto.name) == (package, f"barista/proto/{package}.proto")
    assert proto.syntax in ("", "proto2")
    assert caffe_pb2.DESCRIPTOR.message_types_by_name["NetParameter"] is not None


@pytest.mark.parametrize("package", MODULES)
def test_generated_module_is_what_the_format_says(package: str, tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    output = tmp_path / "schema.bin"
    status = protoc.main(["protoc", f"--proto_path={ROOT}", f"--descriptor_set_out={output}",
                          f"barista/proto/{package}.proto"])
    assert status == 0
    compiled = FileDescriptorSet.FromString(output.read_bytes()).file[0]
    generated = schema(package)
    # Two ways of writing the same thing: names for JSON, and the digits of a float default.
    for proto in (compiled, generated):
        for message in proto.message_type:
            for field in message.field:
                field.ClearField("json_name")
                if field.type == FieldDescriptorProto.TYPE_FLOAT and field.HasField("default_value"):
                    field.default_value = option(field)
    assert compiled == generated


@pytest.mark.parametrize("package", MODULES)
def test_type_stub_lists_each_field(package: str) -> None:
    tree = ast.parse((ROOT / f"barista/proto/{package}_pb2.pyi").read_text())
    stub = {node.name: {item.target.id for item in node.body
                        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
            for node in tree.body if isinstance(node, ast.ClassDef)}
    proto = schema(package)
    assert set(stub) == {message.name for message in proto.message_type} | {enum.name for enum in proto.enum_type}
    for message in proto.message_type:
        fields = {field.name for field in message.field}
        values = {value.name for enum in message.enum_type for value in enum.value}
        constants = {f"{field.upper()}_FIELD_NUMBER" for field in fields}
        assert stub[message.name] == fields | values | constants, message.name


@pytest.mark.parametrize(("package", "message"), [("caffe", "NetParameter"), ("caffe2", "NetDef")])
def test_formats_ship_with_the_package(package: str, message: str) -> None:
    text = resources.files("barista.proto").joinpath(f"{package}.proto").read_text()
    assert f"message {message}" in text
