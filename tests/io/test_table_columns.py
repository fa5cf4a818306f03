"""Which columns of a table are coordinates, normals and colors, and what is said about it."""

import json
from pathlib import Path

import numpy as np
import pytest

from unrender import FileFormatError, load_cloud
from unrender.cli.main import main
from unrender.io.clouds import load_cloud_and_columns

GENERATOR = np.random.default_rng(0)
POINTS = GENERATOR.normal(0, 3, (40, 3))
UNIT = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
BYTES = GENERATOR.integers(0, 256, (40, 3))
WORDS = GENERATOR.integers(0, 65536, (40, 3))
LABEL = GENERATOR.integers(0, 5, (40, 1))
IDS = np.arange(40)[:, None]
RANGE = np.linalg.norm(POINTS, axis=1, keepdims=True)


def write(path: Path, columns: list[np.ndarray], header: str = "", delimiter: str = ",") -> Path:
    rows = [delimiter.join(f"{x:.9g}" for x in row) for row in np.hstack(columns)]
    path.write_text("\n".join(([header] if header else []) + rows) + "\n")
    return path


NAMED = {
    "VeloView": ([WORDS[:, :1], LABEL, POINTS], '"intensity","id","Points_m_XYZ:0","Points_m_XYZ:1","Points_m_XYZ:2"'),
    "ParaView": ([UNIT, POINTS], '"Normals:0","Normals:1","Normals:2","Points:0","Points:1","Points:2"'),
    "ID first": ([IDS, POINTS], "id,X,Y,Z"),
    "units": ([RANGE, POINTS], "range [m],x [m],y [m],z [m]"),
    "surveyors": ([LABEL, POINTS], "point,Easting,Northing,Elevation"),
    "colors first": ([BYTES, POINTS], "Red,Green,Blue,X,Y,Z"),
    "16-bit colors": ([POINTS, WORDS], "X,Y,Z,R,G,B"),
    "fractions": ([POINTS, BYTES / 255], "X,Y,Z,Rf,Gf,Bf"),
    "both": ([POINTS, BYTES, UNIT], "x,y,z,r,g,b,nx,ny,nz"),
    "prefixes": ([UNIT, POINTS], "normal_x,normal_y,normal_z,position_x,position_y,position_z"),
    "label last": ([POINTS, BYTES, LABEL], "//X,Y,Z,R,G,B,Classification"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_names_decide(tmp_path: Path, case: str, delimiter: str) -> None:
    columns, header = NAMED[case]
    path = write(tmp_path / "a.csv", columns, header.replace(",", delimiter), delimiter)
    cloud = load_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, rtol=1e-6)
    assert (cloud.normals is not None) == any(part is UNIT for part in columns)
    if cloud.normals is not None:
        np.testing.assert_allclose(cloud.normals, UNIT, atol=1e-6)
    assert (cloud.colors is not None) == any(
        part is BYTES or part is WORDS or "f," in header for part in columns
    )
    if cloud.colors is not None:
        expected = WORDS / 65535 if any(part is WORDS for part in columns) else BYTES / 255
        np.testing.assert_allclose(cloud.colors, expected, atol=1e-6)


VALUES = {
    "16-bit colors": ([POINTS, WORDS], None, WORDS / 65535),
    "8-bit colors": ([POINTS, BYTES], None, BYTES / 255),
    "normals": ([POINTS, UNIT.round(2)], UNIT, None),
    "vectors": ([POINTS, 3 * UNIT], None, None),
    "measurements": ([POINTS, RANGE, RANGE * 40, RANGE + 0.25], None, None),
    "colors that may end in a label": ([POINTS, BYTES, LABEL], None, None),
    "colors and an alpha in 0..1": ([POINTS, BYTES, RANGE / 99], None, BYTES / 255),
    "intensity and colors": ([POINTS, -RANGE, BYTES], None, BYTES / 255),
    "normals and colors": ([POINTS, UNIT, WORDS], UNIT, WORDS / 65535),
    "rows counted": ([IDS, POINTS], None, None),
    "rows counted, colors": ([IDS + 1, POINTS, BYTES], None, BYTES / 255),
}


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("suffix", ["xyz", "npy"])
def test_values_decide_without_names(tmp_path: Path, case: str, suffix: str) -> None:
    columns, normals, colors = VALUES[case]
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, np.hstack(columns))
    else:
        write(path, columns, delimiter=" ")
    cloud = load_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, rtol=1e-5, atol=1e-6)
    for found, expected in ((cloud.normals, normals), (cloud.colors, colors)):
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=0.01)


REFUSED = {
    "no coordinates": ([WORDS, LABEL], "intensity,time,return,class", "none of the columns intensity, time"),
    "angles with units": ([POINTS], "lat (deg),lon (deg),alt (m)", "latitude and longitude are angles"),
    "angles of a receiver": ([POINTS], "GPS_Latitude,GPS_Longitude,z", "latitude and longitude are angles"),
    "angles": ([POINTS], "Latitude,Longitude,Height", "latitude and longitude are angles"),
    "fewer names": ([POINTS, BYTES], "x,y,z", "names 3 columns, but the rows have 6"),
    "normals first": ([UNIT, POINTS], "", "look like unit normals"),
    "colors first": ([BYTES, POINTS], "", "look like colors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_columns_are_refused(tmp_path: Path, case: str) -> None:
    columns, header, message = REFUSED[case]
    with pytest.raises(FileFormatError, match=message):
        load_cloud(write(tmp_path / "a.csv", columns, header))


EXPORTED = {
    "UTF-16": lambda rows: "\n".join(rows).encode("utf-16"),
    "separators at the end": lambda rows: "".join(f"{row},\n" for row in rows).encode(),
    "quotes": lambda rows: "\n".join('"' + row.replace(",", '","') + '"' for row in rows).encode(),
    "decimal commas": lambda rows: "".join(
        row.replace(",", ";").replace(".", ",") + ";\n" for row in rows
    ).encode(),
}


@pytest.mark.parametrize("case", EXPORTED)
@pytest.mark.parametrize("header", ["id,x,y,z,größe", ""])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, case: str, header: str) -> None:
    rows = [",".join(f"{x:.5f}" for x in row) for row in np.hstack([IDS, POINTS, RANGE])]
    path = tmp_path / "a.csv"
    path.write_bytes(EXPORTED[case](([header] if header else []) + rows))
    cloud, columns = load_cloud_and_columns(path)
    np.testing.assert_allclose(cloud.points, POINTS, rtol=0, atol=1e-5)
    assert columns.endswith("ignored: id, größe" if header else "ignored: columns 1, 5")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x,y,z\n1,2,3\n4,,6\n", "line 3: a value is missing"),
        ("x,y,z,\n1,2,3,\n4,5,\n", "line 3: the number of columns changes from 3 to 2"),
        ('x,y,z\n"691,240.5","5,334.5","1"\n', "cannot be parsed"),
        ('"691,240.5","5,334.5","1"\n', "cannot be parsed"),
    ],
)
def test_what_a_row_lacks_is_said(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(FileFormatError, match=message):
        load_cloud(tmp_path / "a.csv")


def test_three_columns_of_unknown_names_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [POINTS], "Rechtswert,Hochwert,Höhe")
    assert load_cloud_and_columns(path)[1] == "points from Rechtswert, Hochwert, Höhe"


@pytest.mark.parametrize(("kind", "highest"), [("ushort", 65535), ("uchar", 255), ("float", 1), ("int", 255)])
def test_ply_colors_of_any_type(tmp_path: Path, kind: str, highest: int) -> None:
    values = [(1.0, 0.5, 0.25), (0.2, 0.4, 0.6)]
    rows = [[highest * v if kind == "float" else round(highest * v) for v in row] for row in values]
    names = "".join(f"property float {axis}\n" for axis in "xyz")
    names += "".join(f"property {kind} {name}\n" for name in ("red", "green", "blue"))
    text = f"ply\nformat ascii 1.0\nelement vertex 2\n{names}end_header\n"
    text += "".join(f"0 0 {i} {' '.join(map(str, row))}\n" for i, row in enumerate(rows))
    (tmp_path / "a.ply").write_text(text)
    np.testing.assert_allclose(load_cloud(tmp_path / "a.ply").colors, values, atol=0.003)


def test_fit_mesh_says_which_columns_it_used(tmp_path: Path, capsys) -> None:
    sphere = np.random.default_rng(1).normal(0, 1, (300, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    path = write(
        tmp_path / "a.csv", [sphere, 2 * sphere], "Normals:0,Normals:1,Normals:2,Points:0,Points:1,Points:2"
    )
    said = "points from Points:0, Points:1, Points:2; normals from Normals:0, Normals:1, Normals:2"
    assert load_cloud_and_columns(path)[1] == said
    assert main(["fit-mesh", str(path), "--steps", "1", "--output", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["columns"] == said


SURVEYED = [
    "Hochwert;Rechtswert;Höhe",
    "Northing;Easting;Elevation",
    "N;E;H",
    "Nordwert;Ostwert;Hoehe",
    "Norte;Este;Cota",
]


@pytest.mark.parametrize("header", SURVEYED)
def test_northings_before_eastings_are_put_in_order(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.csv", [POINTS[:, [1, 0, 2]]], header, ";")
    np.testing.assert_allclose(load_cloud(path).points.numpy(), POINTS, rtol=1e-6)


@pytest.mark.parametrize("header", ["Longitude,Latitude,Height", "lat;lon;alt", "Länge;Breite;Höhe"])
def test_geographic_degrees_are_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.csv", [POINTS], header, ";" if ";" in header else ",")
    with pytest.raises(FileFormatError, match="latitude and longitude are angles; convert them"):
        load_cloud(path)


def commas(path: Path, columns: list[np.ndarray], separator: str) -> Path:
    text = "\n".join(separator.join(f"{x:.6f}" for x in row) for row in np.hstack(columns))
    path.write_text(text.replace(".", ",") + "\n")
    return path


@pytest.mark.parametrize("separator", [" ", ";", "\t", " ; "])
def test_decimal_commas_without_a_header(tmp_path: Path, separator: str, caplog) -> None:
    cloud = load_cloud(commas(tmp_path / "a.txt", [POINTS, UNIT], separator))
    np.testing.assert_allclose(cloud.points.numpy(), POINTS, atol=1e-5)
    assert cloud.normals is not None
    assert "read commas as decimal points" in caplog.text


def test_whole_numbers_between_commas_are_read(tmp_path: Path) -> None:
    table = np.hstack([np.abs(BYTES), BYTES])
    assert len(load_cloud(write(tmp_path / "a.csv", [table])).points) == 40


def test_decimal_commas_between_commas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="decimal commas"):
        load_cloud(commas(tmp_path / "a.csv", [POINTS], ","))


COLOR_SCALES = {"0 to 2.55": 2.55, "0 to 5.5": 5.5, "10 bits": 1023.0, "12 bits": 4095.0}


@pytest.mark.parametrize("largest", COLOR_SCALES.values(), ids=COLOR_SCALES)
def test_colors_of_an_unusual_range_are_neither_black_nor_clipped(
    tmp_path: Path, largest: float, caplog
) -> None:
    fractions = GENERATOR.random((40, 3))
    fractions[0, 0] = 1.0
    path = tmp_path / "a.ply"
    header = "ply\nformat ascii 1.0\nelement vertex 40\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "red", "green", "blue")
    )
    rows = np.hstack([POINTS, fractions * largest])
    path.write_text(
        header + "end_header\n" + "\n".join(" ".join(f"{x:.6g}" for x in row) for row in rows) + "\n"
    )
    np.testing.assert_allclose(load_cloud(path).colors.numpy(), fractions, atol=2e-3)
    assert f"colors up to {largest:g} do not fit the usual ranges" in caplog.text


def test_dark_colors_in_bytes_stay_dark(tmp_path: Path, caplog) -> None:
    cloud = load_cloud(write(tmp_path / "a.csv", [POINTS, np.minimum(BYTES, 9)], "x,y,z,r,g,b"))
    assert float(cloud.colors.max()) < 0.04
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_colors_far_below_zero_are_said(tmp_path: Path, caplog) -> None:
    load_cloud(write(tmp_path / "a.csv", [POINTS, UNIT], "x,y,z,r,g,b"))
    assert "colors below 0, down to -" in caplog.text
