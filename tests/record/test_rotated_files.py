"""Names and numbers of rotated files, and which of them stay."""

import pytest
from helpers.conversions import Conversions

from stratokit.formats import spool
from stratokit.record import rotation
from stratokit.record.options import RecordOptions, Rotation
from stratokit.record.rotation import Names, Rotate
from stratokit.record.segments import Segment


@pytest.fixture
def rotate(tmp_path, monkeypatch):
    monkeypatch.setattr(rotation, "Conversions", Conversions)
    said = []

    def make(**settings):
        options = RecordOptions(tmp_path / "a.parquet", tmp_path / "a.spool", rotation=Rotation(**settings))
        found = Rotate(options, said.append)
        found.said = said
        return found

    return make


def segment(found, number):
    path = found.path_of(number)
    path.touch()
    return Segment(path, 1)


def names(folder, suffix=".parquet"):
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


def test_names_sort_as_they_were_made_and_match_nothing_else(tmp_path):
    made = Names(tmp_path / "a.parquet")
    assert made.path(7, ".parquet", 0).name == "a-000007-19700101T000000Z.parquet"
    for name in (
        "b-000001-19700101T000000Z.parquet",
        "a-1.parquet",
        "a-000001-19700101T000000Z.txt",
        "a.parquet",
    ):
        (tmp_path / name).touch()
    for number in (1_000_000, 2, 10):
        made.path(number, ".parquet", 0).touch()
    assert [number for number, _ in made.existing(".parquet")] == [2, 10, 1_000_000]


def test_the_last_files_stay_those_of_earlier_recordings_too(rotate, tmp_path):
    for number in (3, 4):
        Names(tmp_path / "a.parquet").path(number, ".parquet", 0).touch()
    found = rotate(time_ns=1, count=3)
    for number in (1, 2):
        found.completed(segment(found, number))
        found._conversions.finish_one()
    assert [name[:8] for name in names(tmp_path)] == ["a-000004", "a-000005", "a-000006"]
    assert not names(tmp_path, ".spool")
    assert found.make_room()
    assert len(names(tmp_path)) == 2


def test_without_a_count_nothing_is_removed(rotate, tmp_path):
    found = rotate(time_ns=1)
    for number in range(1, 9):
        found.completed(segment(found, number))
        found._conversions.finish_one()
    assert len(names(tmp_path)) == len(found.outputs) == 8
    assert not found.make_room()


def test_segments_that_come_too_fast_are_removed_and_said(rotate, tmp_path):
    found = rotate(size_bytes=1, count=2)
    for number in range(1, 7):
        found.completed(segment(found, number))
    assert len(names(tmp_path, ".spool")) == 3
    assert sum("removed unconverted" in text for text in found.said) == 3


def test_what_fails_to_convert_is_kept(rotate, tmp_path):
    found = rotate(time_ns=1)
    found.completed(segment(found, 1))
    found._conversions.finish_one("no space")
    assert len(names(tmp_path, ".spool")) == 1
    assert "no space" in found.said[-1]


def test_a_killed_recording_is_converted_and_its_numbers_go_on(rotate, tmp_path):
    path = Names(tmp_path / "a.parquet").path(41, ".spool", 0)
    writer = spool.SpoolWriter(path)
    writer.write_json(spool.OPENING, {"segment": {"recording": "old", "number": 41}})
    writer.close()
    found = rotate(time_ns=1)
    assert found.path_of(1).name.startswith("a-000042-")
    assert found._conversions.jobs[0].output == path.with_suffix(".parquet")
