"""Averages of checkpoints are plain means, of the checkpoints of one training, and say of which."""

import pytest
import torch

from helpers import fails_cleanly, tool_here
from scopevit.utils.averaging import average_checkpoints, last_checkpoints
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.errors import UserError

TOOL = 'converters/average_checkpoints.py'


def weights(seed, width=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        'conv.weight': torch.randn(width, 4, generator=generator),
        'half': torch.randn(5, generator=generator).half(),
        'norm.running_var': torch.rand(3, generator=generator) + 0.5,
        'norm.num_batches_tracked': torch.tensor(10 * seed),
    }


def write(folder, seed, step=None, name=None, state=None, **meta):
    """A checkpoint after ``step`` epochs of ten iterations."""
    step = seed if step is None else step
    path = folder / (name or f'epoch_{step}.pth')
    meta = dict(epoch=step, iter=10 * step, seed=7, **meta)
    torch.save(dict(state_dict=state or weights(seed), meta=meta, optimizer=dict(a=1)), path)
    return str(path)


def test_alike_is_the_plain_mean(tmp_path):
    paths = [write(tmp_path, seed) for seed in (1, 2, 3)]
    average = average_checkpoints(paths)
    for name, value in average.weights.items():
        values = [weights(seed)[name] for seed in (1, 2, 3)]
        if name == 'norm.num_batches_tracked':
            assert value == 30  # the newest one's
        else:
            assert value.dtype == values[0].dtype
            assert torch.equal(value, torch.stack(values).double().mean(0).to(value.dtype))


def test_equal_checkpoints_average_to_themselves_bit_by_bit(tmp_path):
    """Sums in float32 would drift: a third of 0.1, three times, is not 0.1."""
    paths = [write(tmp_path, 1, step, state=weights(1)) for step in range(1, 50)]
    for decay in (1.0, 0.9):
        assert all(
            torch.equal(value, weights(1)[name]) for name, value in average_checkpoints(paths, decay).weights.items()
        )


def test_the_newest_weighs_most_whatever_the_order_of_the_files(tmp_path):
    paths = [write(tmp_path, seed) for seed in (10, 9, 11)]  # a shell lists 10 and 11 before 9
    average = average_checkpoints(paths, decay=0.5)
    assert [share for _, share in average.shares] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    expected = sum(
        share * weights(seed)['conv.weight'].double() for share, seed in zip((1 / 7, 2 / 7, 4 / 7), (9, 10, 11))
    )
    torch.testing.assert_close(average.weights['conv.weight'], expected.float())
    assert average.weights['norm.num_batches_tracked'] == 110
    assert average.meta == dict(
        epoch=11,
        iter=110,
        seed=7,
        averaged=dict(zip(('epoch_9.pth', 'epoch_10.pth', 'epoch_11.pth'), (1 / 7, 2 / 7, 4 / 7))),
    )


def test_the_last_ones_of_a_work_dir_go_by_number(tmp_path):
    for epoch in (8, 9, 10):
        write(tmp_path, epoch)
    write(tmp_path, 9, name='best_accuracy_top1_epoch_9.pth')
    write(tmp_path, 10, name='interrupted_105.pth')
    assert [path.rpartition('/')[2] for path in last_checkpoints(str(tmp_path), 2)] == ['epoch_9.pth', 'epoch_10.pth']
    with pytest.raises(UserError, match='has 3 checkpoints .*not 4.*max_keep_ckpts=-1'):
        last_checkpoints(str(tmp_path), 4)
    write(tmp_path, 9, name='iter_90.pth')
    with pytest.raises(UserError, match='by epochs and by iterations'):
        last_checkpoints(str(tmp_path), 2)


def test_raw_weights_of_a_training_with_a_moving_average(tmp_path):
    for step in (1, 2):
        checkpoint = torch.load(write(tmp_path, step))
        checkpoint['ema_state_dict'] = {
            'module.conv.weight': weights(10 + step)['conv.weight'],
            'steps': torch.tensor(3),
        }
        torch.save(checkpoint, tmp_path / f'epoch_{step}.pth')
    paths = [tmp_path / 'epoch_1.pth', tmp_path / 'epoch_2.pth']
    for kind, seeds in (('auto', (1, 2)), ('ema', (1, 2)), ('raw', (11, 12))):
        expected = sum(weights(seed)['conv.weight'].double() for seed in seeds) / 2
        assert torch.equal(average_checkpoints(paths, kind=kind).weights['conv.weight'], expected.float())


def _run(lr):
    return dict(processes=1, epoch_length=10, settings=dict(optim_wrapper=dict(lr=lr)))


def test_names_what_is_wrong(tmp_path):
    first, second = write(tmp_path, 1, run=_run(0.1)), write(tmp_path, 2, run=_run(0.1))
    broken = write(tmp_path, 3, state=dict(weights(3), half=torch.full((5,), torch.nan)))
    wide = write(tmp_path, 4, state=weights(4, width=8))
    more = write(tmp_path, 5, state=dict(weights(5), extra=torch.ones(1)))
    other_lr, again = write(tmp_path, 6, run=_run(0.2)), write(tmp_path, 7, step=1, name='best_epoch_1.pth')
    other_seed = write(tmp_path, 8)
    checkpoint = torch.load(other_seed)
    checkpoint['meta']['seed'] = 8
    torch.save(checkpoint, other_seed)
    (tmp_path / 'text.pth').write_text('no checkpoint')
    (tmp_path / 'empty').mkdir()
    out = tmp_path / 'average.pth'
    for words, says in (
        ([first], 'an average is of two checkpoints or more'),
        ([first, second, first], 'epoch_1.pth is given twice'),
        ([first, again], 'are of one iteration (10) of one training'),
        ([first, broken], 'epoch_3.pth holds weights that are no finite numbers (half'),
        ([first, wide], 'are of two models: 3 matched, 0 missing, 0 unexpected, 1 of another shape'),
        ([first, more], 'unexpected: extra'),
        ([first, other_lr], 'are of two trainings, which differ in optim_wrapper.lr'),
        ([first, other_seed], 'are of two trainings, which differ in seed 7 and 8'),
        ([first, tmp_path / 'text.pth'], 'text.pth is truncated or not a PyTorch file'),
        ([first, tmp_path / 'none.pth'], 'none.pth does not exist'),
        ([first, second, '--decay', '0'], '--decay must be above 0 and at most 1, but is 0'),
        ([first, second, '--last', '2'], '--last and a work dir belong together'),
        ([tmp_path], 'is a folder; say how many of its checkpoints with --last N'),
        ([tmp_path / 'empty', '--last', '2'], 'has 0 checkpoints'),
        ([first, second, '--weights', 'ema'], 'has no averaged weights'),
        ([first, second, '--recompute-norms', 'none.py'], 'none.py does not exist'),
    ):
        fails_cleanly(tool_here(TOOL, *words, '--out', out), says)
        assert not out.exists()
    result = tool_here(TOOL, first, other_seed, '--across-runs', '--out', out)
    assert f'0.5000 of {first}\n0.5000 of {other_seed}\nwrote {out}\n' == result.stdout
    before = out.read_bytes()
    fails_cleanly(tool_here(TOOL, first, second, '--out', out), 'average.pth exists already and is left as it is')
    assert out.read_bytes() == before
    assert read_checkpoint(out).keys() == {'state_dict', 'meta'}
