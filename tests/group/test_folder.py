"""The group's folder: private, short enough for sockets, and removed when its group has ended."""

import os
import stat
import time

import pytest

from obsloop.group import folder, slots
from obsloop.group.folder import FolderError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place of its own for the groups of this test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "obsloop"


def aged(path, seconds):
    """Make all files of a folder, and the folder, look older."""
    then = time.time() - seconds
    for each in (*path.iterdir(), path):
        os.utime(each, (then, then))


def test_it_is_made_for_this_user_alone(root):
    """Other users can neither read the metrics nor put anything there."""
    made = folder.folder_of("shop")
    assert made == str(root / "shop")
    for path in (root, root / "shop"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_folder_that_others_can_enter_is_refused(tmp_path):
    """It may have been made by another user, to read or to forge."""
    tmp_path.chmod(0o755)
    with pytest.raises(FolderError, match="is open to other users; close it with chmod 700"):
        folder.folder_of(str(tmp_path))


def test_a_link_is_not_followed(root, tmp_path):
    """In a common temporary folder, another user can make a link with our name."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(elsewhere)
    with pytest.raises(FolderError, match="is not a folder"):
        folder.folder_of(str(tmp_path / "link"))


def test_the_next_place_is_taken_if_the_first_cannot_be_used(root, tmp_path, monkeypatch):
    """A read-only system has another place, or none; each reason is in the message."""
    root.write_text("a file")
    other = tmp_path / "other"
    monkeypatch.setattr(folder, "roots", lambda: [str(root), str(other)])
    assert folder.folder_of("shop") == str(other / "shop")
    monkeypatch.setattr(folder, "roots", lambda: [str(root)])
    with pytest.raises(FolderError, match="is not a folder"):
        folder.folder_of("shop")


def test_a_name_cannot_lead_out_of_the_root(root):
    """It comes from the environment."""
    for name in ("../up", "a/b", ".hidden", "x" * 200, "a b"):
        with pytest.raises(FolderError, match="expected letters, digits"):
            folder.folder_of(name)


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path):
    """The kernel's limit is 107 bytes; the message says what to do."""
    long = tmp_path / ("x" * 100)
    with pytest.raises(FolderError, match="too long for sockets"):
        folder.folder_of(str(long))


def test_one_address_makes_one_group():
    """Another address is another group, and port 0 is none: each process gets a port of its own."""
    at = folder.name_for("127.0.0.1:9464", {})
    assert at == folder.name_for("127.0.0.1:9464", {})
    assert at != folder.name_for("127.0.0.1:9465", {})
    assert folder.name_for("127.0.0.1:0", {}) is None
    assert folder.name_for("127.0.0.1:0", {"OBSLOOP_GROUP": "shop"}) == "shop"


def test_a_group_begins_anew_a_minute_after_its_last_process(root):
    """A restart within that time goes on; a service that was off for a day does not bring old culprits back."""
    path = folder.folder_of("at-9464")
    with slots.FolderLock(path):
        slot = slots.take(path)
    (root / "at-9464" / "0.json").write_text("{}")
    aged(root / "at-9464", 3_600)
    folder.begin_anew(path)
    assert (root / "at-9464" / "0.json").exists()  # its process lives
    slot.leave()
    aged(root / "at-9464", 50)
    folder.begin_anew(path)
    assert (root / "at-9464" / "0.json").exists()
    aged(root / "at-9464", 70)
    folder.begin_anew(path)
    assert [entry.name for entry in (root / "at-9464").iterdir()] == ["lock"]


def test_a_group_of_obsloop_run_never_begins_anew_while_its_command_runs(root):
    """With one worker that is reloaded, there are moments without a process."""
    name = f"run-{os.getpid()}-abc"
    path = folder.folder_of(name)
    (root / name / "0.json").write_text("{}")
    aged(root / name, 3_600)
    folder.begin_anew(path)
    assert (root / name / "0.json").exists()


def test_who_comes_next_removes_groups_that_have_ended(root):
    """A killed command removes nothing; its folder would stay in memory."""
    mine = folder.folder_of("mine")
    ended, living, young = (folder.folder_of(f"run-{2**22 + 1}-{n}") for n in "abc")
    with slots.FolderLock(living):
        slots.take(living)
    for path in (ended, living):
        aged(root / os.path.basename(path), 3_600)
    folder.remove_old(mine)
    assert not os.path.exists(ended)
    assert all(map(os.path.exists, (mine, living, young)))


def test_a_container_that_starts_again_removes_its_earlier_folder(root):
    """Each run of a container is process 1, which always exists. One in another container of the pod stays."""
    mine, ended, other = (folder.folder_of(f"run-{os.getpid()}-{n}") for n in "abc")
    with slots.FolderLock(other):
        slots.take(other)
    for path in (ended, other):
        aged(root / os.path.basename(path), 3_600)
    folder.remove_old(mine)
    assert not os.path.exists(ended)
    assert all(map(os.path.exists, (mine, other)))
