"""The comparison: its configs, what it writes, and trainings of every method."""

import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from helpers import ROOT, fails_cleanly, tool_here
from projects.mixing import compare
from projects.mixing.compare import missing, ms_per_step, page, parse_args, random_batch, table, write_config
from projects.mixing.methods.stages import show_backbone
from projects.mixing.settings import METHODS, MODELS, PROJECT, config_of
from projects.trainings import Trainer, Training, locked
from scopevit.apis.model import build_model
from scopevit.utils.errors import UserError

COMPARE = ROOT / 'projects' / 'mixing' / 'compare.py'
PAIRS = [('scopevit-xtiny', method) for method in METHODS]
PAIRS += [(m, method) for m in ('p2t-tiny', 'convnext-v2-pico') for method in ('fmix', *METHODS[-3:])]
CONFIGS = sorted(PROJECT.glob('configs/scopevit-xtiny_*.py'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Fashion-MNIST's files with 16 images of noise for training and 4 for testing."""
    folder = tmp_path_factory.mktemp('data')
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for split, part in (('train', pixels[:16]), ('t10k', pixels[16:])):
        header = struct.pack('>4I', 0x803, len(part), 28, 28)
        (folder / f'{split}-images-idx3-ubyte').write_bytes(header + part.tobytes())
        labels = bytes(i % 10 for i in range(len(part)))
        (folder / f'{split}-labels-idx1-ubyte').write_bytes(struct.pack('>2I', 0x801, len(part)) + labels)
    return folder


@pytest.fixture
def parse(data, tmp_path):
    def with_words(*words):
        words = ('--count', 16, '--batch-size', 8, '--work-dir', tmp_path / 'runs', *words)
        return parse_args(['--data', str(data), *map(str, words)])

    return with_words


def test_every_method_has_a_config_of_a_few_lines():
    names = [path.stem.split('_')[1] for path in CONFIGS]
    assert sorted(names) == sorted(METHODS[1:])
    for path in CONFIGS:
        lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
        assert len(lines) <= 6, path


@pytest.mark.parametrize(('model', 'method'), PAIRS)
def test_a_method_changes_nothing_else_of_a_model(model, method):
    plain, cfg = Config.fromfile(MODELS[model]), config_of(model, method)
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert cfg[key] == plain[key]
    for key in ('backbone', 'neck', 'head', 'data_preprocessor'):
        assert cfg.model[key] == plain.model[key]
    if model == 'scopevit-xtiny' and method != 'none':
        (path,) = [path for path in CONFIGS if path.stem.split('_')[1] == method]
        assert cfg.model == Config.fromfile(path).model


@pytest.mark.parametrize(('model', 'method'), PAIRS)
def test_each_pair_has_finite_losses_and_all_gradients(model, method):
    torch.manual_seed(0)
    classifier = build_model(config_of(model, method)).train()
    show_backbone(classifier)
    inputs = classifier.data_preprocessor(random_batch(4), True)
    total = sum(classifier(**inputs, mode='loss').values())
    total.backward()
    assert torch.isfinite(total)
    without = [name for name, p in classifier.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_recipe_of_a_training_follows_the_options(parse):
    cfg = Config.fromfile(write_config('p2t-tiny', 'fmix', parse('--epochs', 18)))
    assert [(step.get('begin', 0), step.end) for step in cfg.param_scheduler] == [(0, 4), (4, 18)]
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (18, 8)
    assert cfg.train_dataloader.dataset.indices == 16
    assert cfg.custom_imports.imports == ['projects.imagenet_table.models', 'projects.mixing.methods']
    short = Config.fromfile(write_config('p2t-tiny', 'none', parse('--epochs', 1)))
    assert short.param_scheduler[0].end == 0.5  # one of two iterations


def test_a_pair_goes_on_with_the_recipe_that_it_was_begun_with(parse):
    args = parse('--models', 'p2t-tiny', '--methods', 'fmix', '--seeds', 1)
    config = write_config('p2t-tiny', 'fmix', args)
    (own,) = missing(args)
    own.note(dict(accuracy=80.0))
    write_config('p2t-tiny', 'fmix', args)
    assert missing(args) == []
    config.write_text(config.read_text().replace("'FMix'", "'CutMix'"))
    with pytest.raises(UserError, match='p2t-tiny/fmix/seed0 is of another recipe'):
        missing(args)


def result_of(model, method, seed, accuracy):
    machine = dict(device='CPU', cpu='X', threads=2, cores=2, torch='2', date='2026-11-27', capability='none', load=1.0)
    return dict(model=model, method=method, seed=seed, accuracy=accuracy, ms_per_step=100.0, machine=machine)


def test_table_says_means_and_spans(parse, monkeypatch):
    args = parse('--models', 'p2t-tiny', '--methods', 'none', 'fmix', 'cutmix', '--seeds', 2)
    results = [
        result_of('p2t-tiny', *rest)
        for rest in (('none', 0, 80.0), ('none', 1, 82.0), ('fmix', 0, 83.0), ('fmix', 1, 84.0), ('cutmix', 0, 90.0))
    ]
    lines = table(results, args).splitlines()
    assert '| none | 81.00 | 80.0 to 82.0 |  | 2 | 100 |' in lines
    assert '| fmix | 83.50 | 83.0 to 84.0 | +2.50 | 2 | 100 |' in lines
    assert '| cutmix | 90.00 | 90.0 to 90.0 |  | 1 | 100 |' in lines  # of another seed count than none
    absent = SimpleNamespace(name='p2t-tiny, cutmix, seed 1')
    monkeypatch.setattr(compare, 'missing', lambda args: [absent])
    text = page(results, args)
    assert 'Missing: p2t-tiny cutmix seed 1.' in text
    assert '16 grey training images' in text


def test_accuracy_after_the_last_epoch_is_written(parse, monkeypatch, tmp_path):
    lines = [dict(loss=1.0, iter=1, time=0.5), {'accuracy/top1': 60.0, 'step': 1}, {'accuracy/top1': 70.0, 'step': 9}]
    script = f"""import pathlib, sys
'fmix' in sys.argv[1] and sys.exit(1)
file = pathlib.Path(sys.argv[1], '1', 'vis_data', 'scalars.json')
file.parent.mkdir(parents=True)
file.write_text({chr(10).join(map(json.dumps, lines))!r})"""
    monkeypatch.setattr(Training, 'command', lambda self, step: [sys.executable, '-c', script, str(self.folder)])
    monkeypatch.setattr(compare, 'estimate', lambda args: None)
    out = tmp_path / 'table.md', tmp_path / 'results.json'
    args = parse('--models', 'p2t-tiny', '--methods', 'none', 'fmix', '--seeds', 2, '--table', out[0], '--json', out[1])
    with pytest.raises(UserError, match='p2t-tiny, fmix, seed 0: the training failed; see .*fmix/seed0/output.txt'):
        compare.compare(args)
    results = json.loads(out[1].read_text())
    assert [(r['method'], r['seed'], r['accuracy'], r['ms_per_step']) for r in results] == [
        ('none', 0, 70.0, 500.0),
        ('none', 1, 70.0, 500.0),
    ]
    page = out[0].read_text()
    assert '| none | 70.00 |' in page
    assert 'Missing: p2t-tiny fmix seed 0, p2t-tiny fmix seed 1.' in page


def test_refuses_what_cannot_be_compared(parse, tmp_path, data):
    fails_cleanly(tool_here(COMPARE, '--data', tmp_path), 'fashion_mnist.py unpack')
    fails_cleanly(tool_here(COMPARE, '--data', data, '--count', 17, '--batch-size', 8), 'from --batch-size, 8, to 16')
    args = parse()
    with locked(args.work_dir), pytest.raises(UserError, match='still runs'):
        compare.compare(args)


def test_estimate_trains_nothing(parse, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, 'run', lambda *args: pytest.fail('trained'))
    compare.compare(parse('--models', 'scopevit-xtiny', '--methods', 'none', 'manifoldmix', '--estimate'))
    assert '6 trainings, about' in capsys.readouterr().out
    assert ms_per_step(config_of('scopevit-xtiny', 'none'), 2, rounds=1) > 0


def train(config, data, work_dir, epochs, *words):
    """Two iterations an epoch by tools/train.py, in this process; the last checkpoint."""
    options = ['--cfg-options', 'train_dataloader.batch_size=8', f'train_cfg.max_epochs={epochs}']
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options += [f'{loader}.dataset.data_root={data}', f'{loader}.num_workers=0']
        options += [f'{loader}.persistent_workers=False']
    tool_here('train.py', config, '--work-dir', work_dir, '--seed', 0, *words, *options, check=True)
    return torch.load(work_dir / f'epoch_{epochs}.pth', weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem.split('_')[1])
def test_a_config_trains_for_two_iterations(config, data, tmp_path):
    saved = train(config, data, tmp_path, epochs=1)
    assert saved['meta']['iter'] == 2
    assert all(torch.isfinite(value).all() for value in saved['state_dict'].values())


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fmix', 'manifoldmix', 'automix'])
def test_a_resumed_training_is_that_which_never_stopped(method, data, tmp_path):
    (config,) = [path for path in CONFIGS if path.stem.split('_')[1] == method]
    whole = train(config, data, tmp_path / 'whole', 2)['state_dict']
    resumed = train(config, data, tmp_path / 'resumed', 2, '--resume', tmp_path / 'whole' / 'epoch_1.pth')['state_dict']
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@pytest.mark.slow
def test_a_comparison_runs_from_end_to_end(data, tmp_path):
    words = ['--data', data, '--count', 16, '--batch-size', 8, '--epochs', 1, '--seeds', 1]
    words += ['--models', 'scopevit-xtiny', '--methods', 'manifoldmix', '--work-dir', tmp_path]
    result = tool_here(COMPARE, *words, check=True)
    assert '| manifoldmix |' in result.stdout
    assert not list(tmp_path.rglob('*.pth'))
