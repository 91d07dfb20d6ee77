"""A copy of a folder that is served: it fits together, holds no update, and what is not whole is refused."""

import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import threading
import zlib

import numpy as np
import pytest

from kbdfl.coordinator import STATE_CLASSES
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.params import load_checkpoint
from kbdfl.server import audit_log
from kbdfl.server import backup as backup_module
from kbdfl.server.app import create_app
from kbdfl.server.archive import MANIFEST, Manifest, Part
from kbdfl.server.backup import back_up, restore
from kbdfl.server.records import SqliteRecords
from kbdfl.snapshot import unpack

PATIENCE_S = 20.0


@pytest.fixture
def busy(make_service, new_phone):
    """A service, and a thread in which two phones play round after round until it is told to stop."""
    service = make_service(rounds=100_000)
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(2)]
    stop, failures = threading.Event(), []

    def play():
        try:
            for seed in range(100_000):
                if stop.is_set():
                    return
                for phone in phones:
                    phone.take_part(service, seed=seed)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    yield service
    stop.set()
    thread.join()
    assert failures == []


@pytest.fixture
def two_rounds(make_service, new_phone):
    """A service after two rounds, and two enrolled phones; the third round is open and holds a report of one."""
    service = make_service()
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(2)]
    for seed in range(2):
        for phone in phones:
            phone.take_part(service, seed=seed)
    _, frame = phones[0].take_part(service, seed=2)
    return service, phones, frame


@pytest.fixture
def made(two_rounds, tmp_path):
    """A backup of it."""
    target = tmp_path / "backup.tar.gz"
    back_up(two_rounds[0].folder, target)
    return target


def members(path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def written(path, contents: dict[str, bytes]):
    """An archive of these files, in this order."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_copy_that_is_made_while_reports_come_in_fits_together(busy, make_service, tmp_path):
    for number in range(5):
        seen = busy.round
        target, folder = tmp_path / f"{number}.tar.gz", tmp_path / f"restored {number}"
        manifest = back_up(busy.folder, target)
        assert manifest.facts["round"] is None or manifest.facts["round"] >= seen - 1
        restore(target, folder)
        again = make_service(folder=folder, rounds=100_000)
        closed = manifest.facts["round"]
        rows, _ = again.metrics(0)
        assert [row["round"] for row in rows] == list(range(0 if closed is None else closed + 1))
        assert again.version == (manifest.facts["version"] or 0)
        assert rows == busy.metrics(0)[0][: len(rows)]


def test_what_is_restored_is_the_model_and_its_rounds_and_goes_on_with_the_same_phones(
    two_rounds, made, make_service, tmp_path
):
    service, phones, _ = two_rounds
    manifest = restore(made, tmp_path / "restored")
    assert (manifest.facts["round"], manifest.facts["version"]) == (1, 2)
    again = make_service(folder=tmp_path / "restored")
    np.testing.assert_array_equal(again._coordinator.params, service._coordinator.params)
    assert again.metrics(0)[0] == service.metrics(0)[0]
    assert again.kept_versions() == service.kept_versions() == [1]
    phones[1].take_part(service, seed=2)
    client = create_app(again).test_client()
    for phone in phones:  # the open round begins anew: both have a part in it
        phone.client = client
        phone.take_part(again, seed=2)
    assert again.status()["phase"] == service.status()["phase"] == "finished"
    np.testing.assert_array_equal(again._coordinator.params, service._coordinator.params)


def test_both_ends_stand_in_the_audit_log(two_rounds, made, tmp_path):
    restore(made, tmp_path / "restored")
    said = {}
    for folder in (two_rounds[0].folder, tmp_path / "restored"):
        records = SqliteRecords(folder)
        audit_log.verify(records)
        said[folder.name] = [entry["what"] for entry in reversed(audit_log.entries(records))]
        records.close()
    assert said["run"][-1] == "backup begun"
    assert said["restored"] == [*said["run"], "restored from a backup"]


def test_nothing_of_an_update_is_in_a_backup(two_rounds, made, tmp_path):
    service, _, frame = two_rounds
    content, _ = service._store.in_flight()
    total = unpack(content, classes=STATE_CLASSES)["open"]["gathered"]["total"]
    traces = [value.tobytes() for value in total[total != 0][::7]]
    traces += [frame[-216 + i : -200 + i] for i in range(50)]
    assert len(traces) > 60
    assert any(trace in content for trace in traces)
    inside = members(made)
    for name, kept in inside.items():
        assert not any(trace in kept for trace in traces), name
    assert not [name for name in inside if "in-flight" in name]
    (tmp_path / "copy").write_bytes(inside["server.sqlite3"])
    copy = sqlite3.connect(tmp_path / "copy")
    assert copy.execute("SELECT count(*) FROM in_flight").fetchone() == (0,)
    copy.close()


def test_credentials_and_what_else_lies_about_are_in_no_backup(service, tmp_path):
    for name in ("admin.json", "server.log", "in-flight-7.bin", "checkpoints/000001.safetensors.part"):
        (service.folder / name).write_text("secret")
    (service.folder / "config.toml").write_text("seed = 1")
    back_up(service.folder, tmp_path / "b.tar.gz")
    assert list(members(tmp_path / "b.tar.gz")) == [MANIFEST, "config.toml", "server.sqlite3"]
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_bundle_is_in_it_and_is_served_at_once(finished, make_service, tmp_path):
    service, _ = finished
    back_up(service.folder, tmp_path / "b.tar.gz")
    restore(tmp_path / "b.tar.gz", tmp_path / "restored")
    again = make_service(folder=tmp_path / "restored")
    assert again.current_bundle().version == 3
    assert again.current_bundle().models() == service.current_bundle().models()


def test_a_copy_is_made_by_a_server_that_is_not_running(two_rounds, tmp_path):
    service, _, _ = two_rounds
    service.close()
    manifest = back_up(service.folder, tmp_path / "b.tar.gz")
    assert manifest.facts["round"] == 1


def test_a_file_that_is_removed_while_it_is_copied_makes_the_copy_begin_anew(
    two_rounds, tmp_path, monkeypatch
):
    service, phones, _ = two_rounds
    copy_versions, tries = backup_module._copy_versions, []

    def late(source, into, newest):
        tries.append(newest)
        if len(tries) == 1:  # the third round ends, and the copied database names what is gone
            phones[1].take_part(service, seed=2)
            for path in source.glob("000002.*"):
                path.unlink()
        copy_versions(source, into, newest)

    monkeypatch.setattr(backup_module, "_copy_versions", late)
    manifest = back_up(service.folder, tmp_path / "b.tar.gz")
    assert tries == [(1, 2), (2, 3)]
    assert manifest.facts["version"] == 3


@pytest.mark.parametrize("name", ["000002.safetensors", "000002.server.safetensors"])
def test_a_folder_that_is_damaged_is_not_taken_for_a_backup(two_rounds, tmp_path, name):
    service, _, _ = two_rounds
    path = service.folder / "checkpoints" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if name.endswith("2.safetensors") else 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|not a kbdfl checkpoint"):
        back_up(service.folder, tmp_path / "b.tar.gz")
    path.unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        back_up(service.folder, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_what_cannot_be_a_backup_or_its_target_is_refused(service, tmp_path):
    target = tmp_path / "b.tar.gz"
    for wrong, why in [
        (tmp_path / "b.zip", "must end in .tar.gz"),
        (tmp_path / "no" / "b.tar.gz", "a folder that exists"),
    ]:
        with pytest.raises(ConfigError, match=why):
            back_up(service.folder, wrong)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="must be a folder that `kbdfl serve` has kept"):
        back_up(tmp_path / "other", target)
    back_up(service.folder, target)
    with pytest.raises(ConfigError, match="is there already"):
        back_up(service.folder, target)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Whether both decompress to the same, as they may if they differ in how a run of zeros is written."""
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (OSError, EOFError, zlib.error):
        return False


def test_a_changed_byte_is_refused_wherever_it_is(made, tmp_path):
    whole, refusals = made.read_bytes(), 0
    for at in [*range(0, len(whole), len(whole) // 150), len(whole) - 1]:
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        if says_the_same(whole, changed):
            continue
        (tmp_path / "changed.tar.gz").write_bytes(changed)
        with pytest.raises(DataError, match="is not a whole backup"):
            restore(tmp_path / "changed.tar.gz", tmp_path / "restored")
        assert not (tmp_path / "restored").exists()
        refusals += 1
    assert refusals > 130
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "changed.tar.gz").write_bytes(whole[:length])
        with pytest.raises(DataError, match="is not a whole backup"):
            restore(tmp_path / "changed.tar.gz", tmp_path / "restored")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_changed_file_is_refused_though_the_archive_is_well_formed(made, tmp_path):
    inside = members(made)
    for name in inside:
        content = bytearray(inside[name])
        content[len(content) // 2] ^= 1
        path = written(tmp_path / "changed.tar.gz", inside | {name: bytes(content)})
        with pytest.raises(DataError, match="is not a whole backup"):
            restore(path, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def with_manifest(inside, **changes) -> dict[str, bytes]:
    """The files with a manifest that fits them, after some were changed; None leaves one out."""
    files = {name: content for name, content in (inside | changes).items() if content is not None}
    facts = Manifest.from_bytes(files.pop(MANIFEST)).facts
    parts = {name: Part(len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    return {MANIFEST: Manifest(facts, parts).to_bytes()} | files


def test_a_manifest_can_bring_nothing_else_into_the_folder(made, tmp_path):
    inside = members(made)
    for name in [
        "../up",
        "/etc/passwd",
        "admin.json",
        "in-flight-0.bin",
        "model/../x",
        "checkpoints/1.safetensors",
    ]:
        path = written(tmp_path / "b.tar.gz", with_manifest(inside, **{name: b"x"}))
        with pytest.raises(DataError, match="which is no file of a backup"):
            restore(path, tmp_path / "restored")
    for contents, why in [
        (with_manifest(inside, **{"server.sqlite3": None}), "server.sqlite3 is missing"),
        (inside | {"config.toml": b""}, "does not name 'config.toml'"),
        (dict(reversed(inside.items())), "manifest.json must come first"),
        ({MANIFEST: b"{}"}, "it lacks 'seal'"),
        ({MANIFEST: b"["}, "Expecting value"),
        ({name: inside[name] for name in list(inside)[:-1]}, "is missing"),
    ]:
        with pytest.raises(DataError, match=why):
            restore(written(tmp_path / "b.tar.gz", contents), tmp_path / "restored")
    forged = with_manifest(inside, **{"server.sqlite3": b"no database" * 100})
    written(tmp_path / "b.tar.gz", forged)
    with pytest.raises(ModelError, match="not the database of a server"):
        restore(tmp_path / "b.tar.gz", tmp_path / "restored")
    assert not (tmp_path / "up").exists()
    assert not (tmp_path / "restored").exists()


def test_a_folder_that_is_served_or_not_empty_is_left_alone(two_rounds, made, tmp_path, monkeypatch):
    service, _, _ = two_rounds
    with pytest.raises(ConfigError, match="is being served"):
        restore(made, service.folder)
    service.close()
    with pytest.raises(ConfigError, match="is not empty"):
        restore(made, service.folder)
    with pytest.raises(ConfigError, match="is a file"):
        restore(made, made)
    empty = tmp_path / "empty"
    empty.mkdir()

    def meanwhile(*arguments):
        (empty / "something").touch()
        return rename(*arguments)

    rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", meanwhile)
        with pytest.raises(ConfigError, match="is not empty"):
            restore(made, empty)
    assert [path.name for path in empty.iterdir()] == ["something"]
    shutil.rmtree(empty)
    empty.mkdir()
    restore(made, empty)
    assert load_checkpoint(empty / "checkpoints" / "000002.safetensors")[2]["version"] == 2


def test_an_archive_is_the_same_bytes_for_the_same_files(made, tmp_path):
    names = [name for name in members(made) if name != MANIFEST]
    restore(made, tmp_path / "restored")
    packed = []
    for number in range(2):
        backup_module.pack(tmp_path / "restored", names, tmp_path / str(number), {"round": 1})
        packed.append((tmp_path / str(number)).read_bytes())
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0])[: len(MANIFEST)] == MANIFEST.encode()
