"""Starting several processes: what torchrun is told, and whose package a tool runs with."""

import sys

import pytest
import torch

from helpers import ROOT, load_tool
from scopevit.utils import arguments


@pytest.fixture
def launch(monkeypatch):
    """tools/launch.py on a machine without GPUs; what it sets in the environment is undone."""
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.setenv(name, '')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    return load_tool('launch.py')


def test_tools_have_names(launch, tmp_path, capsys):
    train = str(ROOT / 'tools/train.py')
    assert launch.command(['4', 'train', 'config.py', '--help']) == [
        *('--standalone', '--nproc-per-node=4', train, 'config.py', '--help', '--launcher', 'pytorch')
    ]
    own = tmp_path / 'own.py'
    own.touch()
    assert launch.command(['1', str(own)])[2:] == [str(own), '--launcher', 'pytorch']
    with pytest.raises(SystemExit):
        launch.command(['2', 'trian', 'config.py'])
    assert 'error: argument TOOL: there is no file trian, and it is neither train nor test' in capsys.readouterr().err


def test_ports_and_machines(launch):
    assert launch.rendezvous({}) == ['--standalone']
    several = launch.rendezvous(dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234'))
    assert several == ['--nnodes=2', '--node-rank=1', '--master-addr=10.0.0.1', '--master-port=1234']
    assert '--master-port=1234' in launch.rendezvous(dict(PORT='1234'))


@pytest.mark.parametrize(
    ('env', 'says'),
    [
        (dict(NNODES='two'), "NNODES must be a whole number of at least 1, but is 'two'"),
        (dict(NODE_RANK='1'), 'NNODES=2 needs MASTER_ADDR, the address of the first machine'),
        (dict(MASTER_ADDR='10.0.0.1'), 'NNODES=2 needs NODE_RANK, the number of this machine from 0 on'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='second'), 'NNODES=2 needs NODE_RANK'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='2'), 'NODE_RANK must be less than NNODES=2, but is 2'),
    ],
)
def test_several_machines_say_who_and_where_they_are(env, says, launch, monkeypatch, capsys):
    """Otherwise each waits for the others in silence."""
    for name, value in dict(NNODES='2', **env).items() if 'NNODES' not in env else env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        launch.command(['1', 'train', 'config.py'])
    assert end.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_processes_share_the_cores_unless_there_is_a_gpu_for_torch(launch, monkeypatch):
    monkeypatch.setattr(launch.os, 'sched_getaffinity', lambda process: range(8), raising=False)
    environ = {}
    launch.share_cores(3, environ)
    assert environ == dict(OMP_NUM_THREADS='2', MKL_NUM_THREADS='2')
    environ = dict(OMP_NUM_THREADS='5', MKL_NUM_THREADS='1')
    launch.share_cores(100, environ)
    assert environ == dict(OMP_NUM_THREADS='5', MKL_NUM_THREADS='1')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    launch.share_cores(3, environ := {})
    assert 'OMP_NUM_THREADS' not in environ


def test_a_tool_of_another_checkout_is_refused(tmp_path, monkeypatch):
    """Two checkouts and one environment: the package is that of the one that was installed."""
    (tmp_path / 'other/scopevit').mkdir(parents=True)
    (tmp_path / 'other/scopevit/__init__.py').touch()
    tool = tmp_path / 'other/tools/analysis/get_flops.py'
    tool.parent.mkdir(parents=True)
    tool.touch()
    monkeypatch.setattr(sys, 'argv', [str(tool)])
    with pytest.raises(SystemExit) as end:
        arguments.tool_parser('A tool.')
    for words in (f'a tool of {tmp_path / "other"}', str(ROOT / 'scopevit'), f'PYTHONPATH={tmp_path / "other"}'):
        assert words in end.value.code
    (tmp_path / 'other/scopevit/__init__.py').unlink()
    arguments.tool_parser('A tool.')
    (tmp_path / 'other/scopevit/__init__.py').touch()
    monkeypatch.setattr(sys, 'argv', [str(tool.with_name('a command'))])
    arguments.tool_parser('A command, started in a folder of another checkout.')
    monkeypatch.setattr(sys, 'argv', [str(tool)])
    monkeypatch.setattr(arguments, 'PACKAGE', tmp_path / 'site-packages' / 'scopevit')
    arguments.tool_parser('A tool beside a package that was installed from this or any other checkout.')
    monkeypatch.undo()
    (tmp_path / 'link').symlink_to(ROOT)
    monkeypatch.setattr(sys, 'argv', [str(tmp_path / 'link/tools/train.py')])
    arguments.tool_parser('A tool.')


def test_ctrl_c_while_torch_is_imported_is_one_word(launch, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, 'share_cores', interrupted)
    monkeypatch.setattr('sys.argv', ['launch.py', '2', 'train', 'config.py'])
    assert launch.run() == 130
    assert capsys.readouterr().err == 'interrupted\n'
