"""A full disk costs a training no more than what does not fit on it."""

import errno
import os
import socket
from types import SimpleNamespace

import pytest
from mmengine.fileio import LocalBackend
from mmengine.hooks import SyncBuffersHook
from torch.utils.data import DataLoader, IterableDataset

from helpers import TOY, fails_cleanly, tool_here
from scopevit.engine import saving
from scopevit.engine.resume import find_checkpoint
from scopevit.engine.saving import GoOnHook
from scopevit.utils.errors import UserError


@pytest.fixture
def full(monkeypatch):
    """Numbers of the checkpoints for which there is no room; they are written half."""
    saved, numbers = [], set()
    usual = LocalBackend.put

    def put(self, content, path):
        saved.append(path)
        if len(saved) in numbers:
            usual(self, content[: len(content) // 2], path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        usual(self, content, path)

    monkeypatch.setattr(LocalBackend, 'put', put)
    monkeypatch.setattr('scopevit.utils.files.raise_own', lambda error: None)  # else it is taken for this file's bug
    return numbers


def train(work_dir, toy_options, *words, **hook):
    options = [f'default_hooks.checkpoint.{key}={value}' for key, value in hook.items()]
    return tool_here('train.py', TOY, '--work-dir', work_dir, *words, *toy_options, *options)


def test_training_goes_on_to_the_next_checkpoint(full, toy_options, tmp_path):
    full.update((2, 3))
    result = train(tmp_path, toy_options, max_keep_ckpts=1)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('make room there; --resume would go on from') == 2
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')


def test_training_whose_end_was_not_saved_fails_and_can_go_on(full, toy_options, tmp_path):
    full.update(range(2, 20))
    options = dict(max_keep_ckpts=1, save_best='accuracy/top1')
    fails_cleanly(train(tmp_path, toy_options, **options), 'epoch_4.pth', 'No space left', 'from ' + str(tmp_path))
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_1.pth')
    assert not list(tmp_path.glob('.unfinished_*'))
    full.clear()
    result = train(tmp_path, toy_options, '--resume', **options)
    assert result.returncode == 0, result.stderr[-3000:]
    names = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert names[1:] == ['epoch_4.pth']
    assert names[0].startswith('best_')


def test_the_best_checkpoint_stays_until_a_better_one_is_whole(full, toy_options, tmp_path):
    """The third is the best of the validation after two epochs, and there is no room for it."""
    full.add(3)
    result = train(tmp_path, toy_options, save_best='accuracy/top1', rule='greater')
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('make room there') == 1
    assert len(list(tmp_path.glob('best_*.pth'))) == 1  # after four epochs, since the score before was not kept


def runner_at(iteration=0, images=range(64), val_images=None, batch_size=16):
    """Something like a runner that is about to train."""
    val_loop = None if val_images is None else SimpleNamespace(dataloader=DataLoader(val_images))
    train = DataLoader(images, batch_size)
    return SimpleNamespace(iter=iteration, train_dataloader=train, train_loop=None, val_loop=val_loop)


@pytest.fixture
def begin(monkeypatch):
    """Begins the training of several processes: tells each runner's hook what those of the others said."""

    def begin(*runners, hosts=None):
        said = []
        for heard in (lambda own: said.append(own) or [own], lambda _: said):
            monkeypatch.setattr(saving, 'all_gather_object', heard)
            for runner, host in zip(runners, hosts or ['host'] * len(runners)):
                monkeypatch.setattr(socket, 'gethostname', lambda host=host: host)
                GoOnHook().before_train(runner)

    return begin


def test_processes_that_would_go_on_from_other_places_end(begin):
    """Each machine may have a work dir of its own."""
    with pytest.raises(UserError, match='iterations 7330, 0: the work dir has to be the same'):
        begin(runner_at(7330), runner_at(0))
    begin(runner_at(0))
    begin(runner_at(7330), runner_at(7330))


def test_processes_with_different_data_end(begin):
    """Each machine may have a copy of its own; one that is not complete would let the others wait without a word."""
    more = 'process 0: 64 training images, 4 training batches; process 1, 2: 96 training images, 6 training batches'
    with pytest.raises(UserError, match=more):
        begin(runner_at(), runner_at(images=range(96)), runner_at(images=range(96)))
    with pytest.raises(UserError, match='process 0 on a: 64 .*; process 1 on b: 96 .*; copy what is missing'):
        begin(runner_at(), runner_at(images=range(96)), hosts='ab')
    with pytest.raises(UserError, match='0: .* 4 training batches; process 1: .* 8 training batches.*config'):
        begin(runner_at(), runner_at(batch_size=8))
    with pytest.raises(UserError, match='0: .* 30 validation images; process 1: .* 31 validation images'):
        begin(runner_at(val_images=range(30)), runner_at(val_images=range(31)))
    begin(runner_at(val_images=range(30)), runner_at(val_images=range(30)), hosts='ab')


class Stream(IterableDataset):
    """Images without a number."""

    def __iter__(self):
        yield 0


def test_processes_train_on_data_without_a_length(begin):
    begin(*[runner_at(images=Stream(), val_images=Stream())] * 2)


@pytest.mark.parametrize(
    ('hooks', 'processes', 'averaged'),
    [
        ([SyncBuffersHook()], 2, ['of the model']),
        ([SyncBuffersHook()], 1, []),
        ([], 2, []),
    ],
)
def test_only_where_a_hook_averages_statistics_it_is_done_before_saving(hooks, processes, averaged, monkeypatch):
    told = []
    monkeypatch.setattr(saving, 'get_world_size', lambda: processes)
    monkeypatch.setattr(saving, 'all_reduce_params', lambda buffers, op: told.append((buffers, op)))
    saving._average_statistics(SimpleNamespace(hooks=hooks, model=SimpleNamespace(buffers=lambda: 'of the model')))
    assert told == [(buffers, 'mean') for buffers in averaged]
