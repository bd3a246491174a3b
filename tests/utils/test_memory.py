"""How much memory is left."""

from scopevit.utils import memory


def test_the_least_of_what_the_system_and_a_container_leave_counts(tmp_path, monkeypatch):
    before = memory.available_memory('cpu')
    assert memory.available_memory('meta') is None
    for name, content in (
        ('max', '3000000'),
        ('current', '2900000'),
        ('stat', 'anon 1\ninactive_file 500000\nactive_file 200000\n'),
    ):
        (tmp_path / f'memory.{name}').write_text(content)
    monkeypatch.setattr(memory, '_GROUPS', ((str(tmp_path), *memory._GROUPS[0][1:]),))
    assert memory.available_memory('cpu') == 800_000
    (tmp_path / 'memory.max').write_text('max\n')  # no limit, and the system has more than that
    after = memory.available_memory('cpu')
    assert (after is None) == (before is None)
    assert after is None or after > 800_000
