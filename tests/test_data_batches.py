"""What the data layers read: image lists, windows, HDF5 files and arrays, held against plain loops."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from barista.data.image_batches import ImageBatches
from barista.data.images import read_image, resize
from barista.data.order import Order
from barista.data.read_ahead import Batches, ReadAhead
from barista.data.transformer import Transformer
from barista.data.window_batches import WindowBatches
from barista.data.windows import read_windows
from barista.errors import DataError, SnapshotError
from barista.proto import caffe_pb2

PNG = Path(__file__).parent / "golden" / "data" / "png"


def transformer(seed: int = 1, phase: int = caffe_pb2.TRAIN, **fields: object) -> Transformer:
    return Transformer(caffe_pb2.TransformationParameter(**fields), phase, np.random.default_rng(seed))


def goes_on(make: Callable[[int], Batches], taken: int) -> None:
    """Hold a reader that was restored, in the same object and in another, against one that simply goes on."""
    with ReadAhead(make(1)) as reader, ReadAhead(make(2)) as other:
        for _ in range(taken):
            reader.next_batch()
        state = json.loads(json.dumps(reader.state()))
        expected = [[array.copy() for array in reader.next_batch()] for _ in range(7)]
        other.next_batch()
        for again in (other, reader):
            again.restore(state)
            assert again.state() == state
            for batch in expected:
                for array, wanted in zip(again.next_batch(), batch, strict=True):
                    np.testing.assert_array_equal(array, wanted)


# ---- orders -----------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(0, 4))
def test_an_order_is_kept_as_one_state(count: int, turns: int) -> None:
    order = Order(count, np.random.default_rng(3))
    for _ in range(turns):
        order.draw()
    state = json.loads(json.dumps(order.state()))
    after = np.random.default_rng(5)
    other = Order(count, after)
    other.restore(state)
    assert sorted(order.places.tolist()) == list(range(count))
    np.testing.assert_array_equal(other.places, order.places)
    assert Order(count, None).places.tolist() == list(range(count)) and Order(count, None).state() is None


# ---- image lists ------------------------------------------------------------------------------------------


def image_list(folder: Path, sizes: list[tuple[int, int]]) -> str:
    """Grey images of one value each, whose number is their label, in a list with a blank line in the middle."""
    lines = []
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(np.full((height, width), 10 * number, np.uint8)).save(folder / f"{number} .png")
        lines.append(f"{number} .png {number}" + "\n" * (1 + (number == 1)))
    (folder / "list.txt").write_text("".join(lines))
    return str(folder / "list.txt")


def test_images_come_in_order_and_round_again(tmp_path: Path) -> None:
    source = image_list(tmp_path, [(4, 5)] * 5)
    batches = ImageBatches(source, 3, transformer(scale=0.5), root_folder=f"{tmp_path}/", color=False)
    with ReadAhead(batches, prefetch=2) as reader:
        assert reader.shapes == ((3, 1, 4, 5), (3,))
        for turn in range(6):
            data, labels = reader.next_batch()
            expected = np.arange(3 * turn, 3 * turn + 3) % 5
            np.testing.assert_array_equal(labels, expected)
            np.testing.assert_array_equal(data, np.broadcast_to(5.0 * expected[:, None, None, None], data.shape))


def test_shuffled_images_come_once_a_turn_in_another_order_each() -> None:
    batches = ImageBatches(str(PNG / "list.txt"), 5, transformer(), root_folder=f"{PNG}/", shuffle=True, height=7,
                           width=6)
    expected = {read_image(PNG / f"{number}.png", height=7, width=6).tobytes() for number in range(10)}
    turns = []
    with ReadAhead(batches) as reader:
        for _ in range(4):
            images = [image.astype(np.uint8).tobytes() for _ in range(2) for image in reader.next_batch()[0]]
            assert set(images) == expected
            turns.append(images)
    assert all(turn != turns[0] for turn in turns[1:])


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("shuffle", [False, True])
def test_images_go_on_exactly(taken: int, shuffle: bool) -> None:
    goes_on(lambda seed: ImageBatches(str(PNG / "list.txt"), 3, transformer(seed, crop_size=5, mirror=True),
                                      root_folder=f"{PNG}/", shuffle=shuffle, rand_skip=4), taken)


def test_batches_of_one_take_the_size_of_their_image(tmp_path: Path) -> None:
    sizes = [(4, 5), (2, 3), (7, 1)]
    source = image_list(tmp_path, sizes)
    with ReadAhead(ImageBatches(source, 1, transformer(), root_folder=f"{tmp_path}/")) as reader:
        held = [reader.next_batch()[0] for _ in range(5)]
    assert [data.shape for data in held] == [(1, 3, *sizes[number % 3]) for number in range(5)]
    with ReadAhead(ImageBatches(source, 2, transformer(), root_folder=f"{tmp_path}/")) as reader, \
            pytest.raises(DataError, match=r"list.txt:2: image '1 .png' has shape \(3, 2, 3\), the first of its batch "
                                           r"\(3, 4, 5\); give new_height and new_width, or crop_size"):
        reader.next_batch()


def test_rand_skip_begins_further_on(tmp_path: Path) -> None:
    source = image_list(tmp_path, [(1, 1)] * 4)

    def first(seed: int) -> int:
        with ReadAhead(ImageBatches(source, 1, transformer(seed), root_folder=f"{tmp_path}/", rand_skip=3)) as reader:
            return int(reader.next_batch()[1][0])

    assert {first(seed) for seed in range(20)} == {0, 1, 2}
    with pytest.raises(DataError, match=r"has 4 lines, fewer than the .* that rand_skip=4000 may ask for; lower it"):
        ImageBatches(source, 1, transformer(), root_folder=f"{tmp_path}/", rand_skip=4000)


@pytest.mark.parametrize("text, message", [
    ("0 .png 0\nnone.png 1\n", r"list.txt:2: image '.*none.png' cannot be read: No such file .*root_folder '.*/' is"),
    ("0 .png 0\n. 1\n", r"list.txt:2: image '.*' cannot be read: Is a directory$"),
    ("0 .png 0\nlist.txt 1\n",
     r"list.txt:2: image '.*list.txt' cannot be decoded: it is damaged, or no image of the formats BMP, GIF, .*WEBP$"),
    ("0 .png 0\n0 .png 1.5\n", r"list.txt:2: '0 .png 1.5' is not `name label`"),
    ("\n0 .png\n", r"list.txt:2: '0 .png' is not `name label`")])
def test_bad_lines_and_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    source = image_list(tmp_path, [(4, 5)])
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message), \
            ReadAhead(ImageBatches(source, 2, transformer(), root_folder=f"{tmp_path}/")) as reader:
        reader.next_batch()


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf0 .png 7\n", b"\xef\xbb\xbf\r\n0 .png 7"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, text: bytes) -> None:
    source = image_list(tmp_path, [(1, 1)])
    (tmp_path / "list.txt").write_bytes(text)
    with ReadAhead(ImageBatches(source, 1, transformer(), root_folder=f"{tmp_path}/")) as reader:
        assert reader.next_batch()[1].tolist() == [7]


def test_whole_labels_may_be_written_as_floats(tmp_path: Path) -> None:
    source = image_list(tmp_path, [(1, 1)])
    (tmp_path / "list.txt").write_text("0 .png -3.0\n")
    with ReadAhead(ImageBatches(source, 1, transformer(), root_folder=f"{tmp_path}/")) as reader:
        assert reader.next_batch()[1].tolist() == [-3]


@pytest.mark.parametrize("state, kind, message", [
    ({"line": 10, "order": None, "rng": 0}, DataError, "cannot go to image 10, it has 10; was it changed"),
    ({"line": "x", "order": None, "rng": 0}, DataError, r"in the state to go on from; it must come from state\(\)"),
    ({"order": None, "rng": 0}, DataError, "'line'"),
    ({"line": 1, "order": None, "rng": 0}, SnapshotError, "is no state of a PCG64 generator")])
def test_states_that_do_not_fit(state: dict, kind: type, message: str) -> None:
    with ReadAhead(ImageBatches(str(PNG / "list.txt"), 3, transformer(), root_folder=f"{PNG}/")) as reader, \
            pytest.raises(kind, match=message):
        reader.restore(state)


# ---- windows ----------------------------------------------------------------------------------------------


def window_file(folder: Path, windows: list[list[str]], size: tuple[int, int] = (20, 30)) -> str:
    """Images of noise, each with its windows."""
    rng, text = np.random.default_rng(7), ""
    for index, lines in enumerate(windows):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{index}.png")
        text += f"# {index}\n{index}.png\n3\n{size[0]}\n{size[1]}\n{len(lines)}\n" + "".join(f"{w}\n" for w in lines)
    (folder / "windows.txt").write_text(text)
    return str(folder / "windows.txt")


def window_batches(folder: Path, source: str, transform: dict, seed: int = 1, **fields: object) -> WindowBatches:
    param = caffe_pb2.WindowDataParameter(source=source, root_folder=f"{folder}/", **{"batch_size": 1, **fields})
    return WindowBatches(param, caffe_pb2.TransformationParameter(**transform), np.random.default_rng(seed))


def half_away(number: float) -> int:
    """C's round."""
    return int(np.floor(number + 0.5)) if number >= 0 else -int(np.floor(-number + 0.5))


def cut_by_hand(image: np.ndarray, box: list[int], size: int, pad: int, square: bool, mirrored: bool) -> np.ndarray:
    """The square of a window, pixel by pixel, NaN where nothing lies."""
    x1, y1, x2, y2 = box
    out = np.full((3, size, size), np.nan)
    pad_w = pad_h = 0
    width = height = size
    if pad or square:
        scale = size / (size - 2 * pad)
        half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
        middle_x, middle_y = x1 + half_w, y1 + half_h
        if square:
            half_w = half_h = max(half_w, half_h)
        x1, x2 = half_away(middle_x - half_w * scale), half_away(middle_x + half_w * scale)
        y1, y2 = half_away(middle_y - half_h * scale), half_away(middle_y + half_h * scale)
        x_scale, y_scale = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
        left, right = max(0, -x1), max(0, x2 - image.shape[2] + 1)
        above, below = max(0, -y1), max(0, y2 - image.shape[1] + 1)
        x1, x2, y1, y2 = x1 + left, x2 - right, y1 + above, y2 - below
        width, height = half_away((x2 - x1 + 1) * x_scale), half_away((y2 - y1 + 1) * y_scale)
        pad_h = half_away(above * y_scale)
        pad_w = half_away(right * x_scale) if mirrored else half_away(left * x_scale)
        width, height = min(width, size - pad_w), min(height, size - pad_h)
    part = resize(image[:, y1:y2 + 1, x1:x2 + 1], height, width)
    for channel in range(3):
        for row in range(height):
            for column in range(width):
                source = width - 1 - column if mirrored else column
                out[channel, row + pad_h, column + pad_w] = part[channel, row, source]
    return out


@pytest.mark.parametrize("mode", ["warp", "square"])
@pytest.mark.parametrize("pad", [0, 2, 5])
@pytest.mark.parametrize("box", [[3, 4, 12, 9], [0, 0, 29, 19], [25, 1, 29, 19], [7, 15, 7, 19], [0, 0, 0, 0]])
def test_windows_are_cut_as_by_hand(tmp_path: Path, mode: str, pad: int, box: list[int]) -> None:
    words = " ".join(map(str, box))
    source = window_file(tmp_path, [[f"5 0.9 {words}", f"2 0.1 {words}"]])
    image = read_image(tmp_path / "0.png")
    mean = np.array([10, 20, 30.5])[:, None, None]
    with ReadAhead(window_batches(tmp_path, source, {"crop_size": 13, "mean_value": mean.ravel(), "mirror": True},
                                  context_pad=pad, crop_mode=mode, fg_fraction=0.5, batch_size=4,
                                  scale=0.25)) as reader:
        wanted = [np.nan_to_num((cut_by_hand(image, box, 13, pad, mode == "square", mirrored) - mean) * 0.25)
                  for mirrored in (False, True)]
        met = set()
        for _ in range(4):
            data, labels = reader.next_batch()
            assert labels.tolist() == [0, 0, 5, 5]
            for square in data:
                met.add([bool(np.allclose(square, one, atol=1e-4)) for one in wanted].index(True))
        assert met >= {0} and (met == {0, 1} or np.allclose(*wanted))


def test_a_mean_image_is_cut_in_its_middle(tmp_path: Path) -> None:
    from barista.data.mean import write_mean

    mean = np.random.default_rng(3).uniform(-50, 200, (3, 9, 11)).astype(np.float32)
    write_mean(tmp_path / "mean", mean)
    source = window_file(tmp_path, [["1 1 2 3 6 7", "0 0 2 3 6 7"]])
    batches = window_batches(tmp_path, source, {"crop_size": 5, "mean_file": str(tmp_path / "mean")}, fg_fraction=1)
    with ReadAhead(batches) as reader:
        # Caffe: the offset is that of the columns, 3, for the rows too.
        expected = read_image(tmp_path / "0.png")[:, 3:8, 2:7] - mean[:, 3:8, 3:8]
        np.testing.assert_allclose(reader.next_batch()[0][0], expected, atol=1e-4)
    with pytest.raises(DataError, match=r"from which no \(3, 8, 8\) can be cut at row and column 1"):
        write_mean(tmp_path / "mean", mean[:, :8])
        window_batches(tmp_path, source, {"crop_size": 8, "mean_file": str(tmp_path / "mean")})


@pytest.mark.parametrize("cache", [False, True])
def test_windows_go_on_exactly(tmp_path: Path, cache: bool) -> None:
    lines = [[f"{k % 4 + 1} {k / 10} {k} {k} {k + 5} {k + 3}" for k in range(10)]] * 3
    source = window_file(tmp_path, lines)
    goes_on(lambda seed: window_batches(tmp_path, source, {"crop_size": 4, "mirror": True}, seed, batch_size=5,
                                        fg_fraction=0.4, cache_images=cache), 3)


def test_thresholds_part_the_windows(tmp_path: Path) -> None:
    source = window_file(tmp_path, [["3 0.7 0 0 1 1", "2 0.5 0 0 2 2", "9 0.3 0 0 3 3"], [], ["4 0.1 1 1 1 1"]])
    windows = read_windows(source, "r/", 0.7, 0.3)
    assert [path for path, _ in windows.images] == ["r/0.png", "r/1.png", "r/2.png"]
    assert windows.foreground.tolist() == [[0, 3, 0, 0, 1, 1, 7]]
    assert windows.background.tolist() == [[2, 0, 1, 1, 1, 1, 22]]


def test_a_byte_order_mark_at_the_start_of_a_window_file(tmp_path: Path) -> None:
    source = Path(window_file(tmp_path, [["1 1 0 0 3 3", "0 0 0 0 3 3"]]))
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    assert read_windows(str(source), "", 0.5, 0.5).foreground.tolist() == [[0, 1, 0, 0, 3, 3, 7]]


GOOD = "# 0\n0.png\n3\n20\n30\n2\n1 1 0 0 3 3\n0 0 0 0 3 3\n"


@pytest.mark.parametrize("old, new, message", [
    ("# 0", "0", r":1: '0' stands where the `#` of the next image is due"),
    ("# 0", "# 1", ":1: image index 1, where 0 is due"),
    ("png\n3", "png\n4", ":3: 4 channels; windows are cut from colour images"),
    ("30\n2", "30\n-2", r":6: '-2' stands where the number of windows is due, a whole number"),
    ("30\n2", "30\n3", ":8: the file ends after 2 of 3 windows"),
    ("30\n2", "30", r":6: '1' stands behind the number of windows"),
    ("0 0 0 0 3 3", "0 0 0 0 3", ":8: the line is no window: class and corners are whole numbers"),
    ("0 0 0 0 3 3", "0 0 0 0 3 3.5", ":8: the line is no window"),
    ("0 0 0 0 3 3", "0 nan 0 0 3 3", ":8: the line is no window"),
    ("1 1 0 0 3 3", "0 1 0 0 3 3", ":7: a foreground window of class 0; classes of objects count from 1"),
    ("1 1 0 0 3 3", "1 0 0 0 3 3", r"has no foreground window \(overlap fg_threshold=0.5 or more\) among 2"),
    ("0 0 0 0 3 3", "1 1 0 0 3 3", r"has no background window \(overlap less than bg_threshold=0.5\) among 2"),
    (GOOD, "", "is empty"),
    ("0.png", "none.png", r":2: image '.*none.png' cannot be read"),
    ("0.png", "windows.txt", r":2: image '.*windows.txt' cannot be decoded"),
    ("0 0 0 0 3 3", "0 0 0 0 30 3", r":8: window \[0, 0, 30, 3\] does not fit its image of 30 x 20 pixels"),
    ("0 0 0 0 3 3", "0 0 4 0 3 3", r":8: window \[4, 0, 3, 3\] does not fit")])
def test_bad_window_files_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    source = window_file(tmp_path, [["1 1 0 0 3 3"]])
    assert old in GOOD
    Path(source).write_text(GOOD.replace(old, new))
    with pytest.raises(DataError, match=message), \
            ReadAhead(window_batches(tmp_path, source, {"crop_size": 4})) as reader:
        reader.next_batch()


@given(st.lists(st.sampled_from(GOOD.split() + ["\n", "\n", "-1", "9" * 12, "nan", "1e9", "\xe9", "x"]), max_size=40),
       st.integers(0, len(GOOD)))
def test_any_text_is_windows_or_an_error(words: list[str], start: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.txt"
        path.write_text(GOOD[:start] + " ".join(words))
        with contextlib.suppress(DataError):
            windows = read_windows(str(path), "", 0.5, 0.5)
            assert (windows.foreground[:, 1] > 0).all() and not windows.background[:, 1].any()


@pytest.mark.parametrize("transform, fields, message", [
    ({}, {}, "transform_param.crop_size must be given"),
    ({"crop_size": 4}, {"batch_size": 0}, "batch_size=0 must be 1 or more"),
    ({"crop_size": 4}, {"context_pad": 2}, "context_pad=2 on both sides leaves nothing of crop_size=4"),
    ({"crop_size": 4}, {"crop_mode": "sqare"}, "unknown crop_mode 'sqare'; did you mean 'square'"),
    ({"crop_size": 4}, {"fg_fraction": 1.5}, "fg_fraction=1.5 must be from 0 to 1"),
    ({"crop_size": 4, "mean_value": [1, 2]}, {}, "2 mean_value for 3 channels; give 1 or 3"),
    ({"crop_size": 4, "mean_value": [1], "mean_file": "m"}, {}, "'m' and 1 mean_value are both set; choose one")])
def test_wrong_parameters_of_windows(tmp_path: Path, transform: dict, fields: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        window_batches(tmp_path, window_file(tmp_path, [["1 1 0 0 3 3"]]), transform, **fields)
