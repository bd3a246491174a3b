"""Files that are written as a whole, where there is room for them."""

import errno
import os

import pytest

from scopevit.utils.errors import UserError
from scopevit.utils.files import UNFINISHED, require_writable_folder, whole_file, write_json


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with whole_file(path) as temporary:
        with open(temporary, 'w') as file:
            file.write('all')
        assert not path.exists()
        assert temporary.endswith('.txt')
    assert path.read_text() == 'all'
    assert [name.name for name in path.parent.iterdir()] == ['a.txt']


def test_what_was_there_stays_if_the_new_one_fails(tmp_path, monkeypatch):
    monkeypatch.setattr('scopevit.utils.files.raise_own', lambda error: None)  # else it is taken for this file's bug
    path = tmp_path / 'a.json'
    path.write_text('precious')
    with pytest.raises(TypeError):
        write_json(path, object())
    with pytest.raises(UserError, match=r'cannot write .*a\.json \(No space'), whole_file(path):
        raise OSError(28, 'No space left on device')
    assert path.read_text() == 'precious'
    assert not list(tmp_path.glob(f'{UNFINISHED}*'))


def test_permissions_and_links_are_those_of_any_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / 'new.json', {})
    finally:
        os.umask(before)
    assert (tmp_path / 'new.json').stat().st_mode & 0o777 == 0o640
    (tmp_path / 'new.json').chmod(0o604)
    (tmp_path / 'link.json').symlink_to('new.json')
    write_json(tmp_path / 'link.json', dict(a=1))
    assert (tmp_path / 'link.json').is_symlink()
    assert (tmp_path / 'new.json').read_text() == '{\n "a": 1\n}'
    assert (tmp_path / 'new.json').stat().st_mode & 0o777 == 0o604


def test_work_dir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='choose another folder with --work-dir'):
        require_writable_folder(str(tmp_path / 'file' / 'work_dir'))
    require_writable_folder(str(tmp_path / 'new' / 'folder'))
    assert (tmp_path / 'new' / 'folder').is_dir()


def test_a_disk_that_is_full_from_the_start_is_refused(monkeypatch, tmp_path):
    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr('tempfile.TemporaryFile', lambda **options: Full())
    with pytest.raises(UserError, match='No space left on device.*--work-dir'):
        require_writable_folder(str(tmp_path))
