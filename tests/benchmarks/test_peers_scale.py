"""The charts of benchmarks.peers.scale, from made-up points."""

from benchmarks.peers import scale
from benchmarks.peers.rows import ROWS


def point(x, pixels, **seconds):
    entries = [{"name": name, "seconds": value} for name, value in seconds.items()]
    return {"row": "segnet", "axis": "batch", "x": x, "pixels": pixels, "entries": entries}


def test_an_axis_changes_one_number_of_the_row():
    row = ROWS["segnet"]
    assert [(x, r.images) for x, r in scale.changes(row, "batch")][:3] == [(1, 1), (2, 2), (4, 4)]
    assert {r.size for _, r in scale.changes(row, "batch")} == {row.size}
    sizes = [(x, r.size) for x, r in scale.changes(row, "size")]
    assert (96 * 128 / 1000, (96, 128)) in sizes
    assert all(height % 32 == width % 32 == 0 for _, (height, width) in sizes)
    assert [x for x, _ in scale.changes(row, "classes")] == [2, 21, 60, 150]


def test_lines_are_microseconds_a_pixel_and_work_of_one_device_relative_to_one():
    points = [point(1, 1000, ours=[0.1, 0.2, 0.9], torch=[0.1]), point(2, 2000, ours=[0.4])]
    points[1]["entries"].append({"name": "torch", "error": "no kernel"})
    assert scale.lines(points, "batch") == {"ours": [(1, 200.0), (2, 200.0)], "torch": [(1, 100.0)]}
    devices = [{"x": 1, "flops": 8.0, "bytes": 4.0}, {"x": 2, "flops": 8.0, "bytes": 5.0}]
    assert scale.lines(devices, "devices") == {
        "FLOPs": [(1, 1.0), (2, 1.0)],
        "bytes": [(1, 1.0), (2, 1.25)],
    }


def test_the_charts_are_one_small_picture(tmp_path):
    png = tmp_path / "speed.png"
    devices = {"row": "segnet", "axis": "devices", "x": 1, "flops": 8.0, "bytes": 4.0}
    scale.draw([point(1, 1000, ours=[0.1]), point(2, 2000, ours=[0.2]), devices], png)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_size < 200_000
