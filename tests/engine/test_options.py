"""What options of train.py make of configs, and that accumulation trains as whole batches do."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from helpers import TOY, fails_cleanly, tool_here
from scopevit.engine import options
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError


def config(**settings):
    base = dict(train_dataloader=dict(batch_size=12), optim_wrapper=dict(type='OptimWrapper'), train_cfg={})
    return Config({**base, **settings})


def test_accumulation_lengthens_what_is_counted_in_iterations_alone():
    cfg = config(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=100, val_interval=10, dynamic_intervals=[(90, 5)]),
        param_scheduler=[
            dict(type='MultiStepLR', by_epoch=False, milestones=[60, 80], gamma=0.1),
            dict(type='ExponentialLR', by_epoch=False, gamma=0.5, end=7),
            dict(type='CosineAnnealingLR', T_max=9, end=9),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10)),
    )
    options.average_weights(cfg)
    options.accumulate(cfg, 4)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts) == (3, 4)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (400, 40)
    assert cfg.train_cfg.dynamic_intervals == [[360, 20]]
    steps, exponential, cosine = cfg.param_scheduler
    assert (steps.milestones, steps.gamma) == ([240, 320], 0.1)
    assert exponential.gamma**28 == pytest.approx(0.5**7)
    assert (cosine.T_max, cosine.end) == (9, 9)
    assert cfg.default_hooks.checkpoint.interval == 40
    assert (cfg.custom_hooks[0].interval, cfg.custom_hooks[0].gamma) == (4, 40)


def test_accumulation_lengthens_the_annealing_of_an_average_that_does_not_say_how_long_it_is():
    """The momentum of RTMPose's average, for example, anneals in the 2,000 steps that its class has by itself."""
    kinds = [dict(ema_type='ExpMomentumEMA'), dict(ema_type='MomentumAnnealingEMA', gamma=10), {}]
    for scope in ('mmpose', 'mmdet'):
        cfg = config(default_scope=scope, custom_hooks=[dict(type='EMAHook', **kind) for kind in kinds])
        options.accumulate(cfg, 4)
        assert [hook.get('gamma') for hook in cfg.custom_hooks] == [8000, 40, None]
        assert [hook.interval for hook in cfg.custom_hooks] == [4, 4, 4]


@pytest.mark.parametrize('words', [[], ['--amp'], ['--accumulate', 2], ['--ema']])
def test_a_config_that_does_not_train_is_one_line(words, tmp_path):
    config = tmp_path / 'test_only.py'
    config.write_text("model = dict(type='ImageClassifier')\ntrain_cfg = dict(by_epoch=True, max_epochs=1)\n")
    result = tool_here('train.py', config, '--work-dir', tmp_path / 'run', *words)
    fails_cleanly(result, 'test_only.py does not train: it has no train_dataloader and no optim_wrapper')


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match=r'cannot divide a batch of 12 images.*train_dataloader\.batch_size=10'):
        options.accumulate(config(), 5)
    with pytest.raises(UserError, match=r'batch of 12 images.*batch_size=24'):
        options.accumulate(config(), 24)


def train(folder, data, *words):
    short = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.dataset.indices=32')
    return tool_here('train.py', TOY, '--work-dir', folder, *words, *data, *short)


@pytest.mark.slow
def test_accumulated_parts_train_as_the_whole_batch(toy_options, tmp_path):
    for name, words in dict(whole=[], parts=['--accumulate', 2]).items():
        result = train(tmp_path / name, toy_options, '--auto-scale-lr', *words)
        assert result.returncode == 0, result.stderr[-2000:]
    whole, parts = (read_checkpoint(tmp_path / name / 'epoch_1.pth') for name in ('whole', 'parts'))
    assert (whole['meta']['iter'], parts['meta']['iter']) == (2, 4)
    before, after = whole['state_dict'], parts['state_dict']
    assert max((before[key].double() - after[key].double()).abs().max().item() for key in before) < 1e-6


@pytest.mark.slow
def test_average_and_figures_of_a_training(toy_options, tmp_path, monkeypatch):
    monkeypatch.setitem(options.LOGGERS, 'tensorboard', ('LocalVisBackend', 'mmengine'))  # without the package
    result = train(tmp_path, toy_options, '--ema', '--log-to', 'tensorboard')
    assert result.returncode == 0, result.stderr[-2000:]
    assert {'state_dict', 'ema_state_dict'} <= set(read_checkpoint(tmp_path / 'epoch_1.pth'))
    assert len(list(tmp_path.glob('*/vis_data/vis_image/*.png'))) == 7  # every fourth of 30 images


def test_a_missing_logger_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(options.LOGGERS, 'wandb', ('WandbVisBackend', 'no_such_package'))
    result = tool_here('train.py', TOY, '--work-dir', tmp_path / 'run', '--log-to', 'wandb')
    fails_cleanly(result, '--log-to needs what is not installed: pip install no_such_package')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('name', 'hook', 'switch'),
    [
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'VisualizationHook', 'enable'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'DetVisualizationHook', 'draw'),
        ('mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', 'SegVisualizationHook', 'draw'),
        ('mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
         'PoseVisualizationHook', 'enable'),
    ],
)  # fmt: skip
def test_loggers_join_those_of_the_toolbox_whose_hook_draws(name, hook, switch, monkeypatch):
    cfg = load_config(name)
    monkeypatch.setattr(options.importlib.util, 'find_spec', lambda name: name)
    options.log_to(cfg, ['wandb', 'tensorboard', 'wandb'])
    options.log_to(cfg, ['tensorboard'])
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == ['LocalVisBackend', 'WandbVisBackend', 'TensorboardVisBackend']
    wandb = cfg.visualizer.vis_backends[1]
    assert wandb.define_metric_cfg == [dict(name='*', step_metric='iter')]  # not a count of curves and figures
    assert wandb.init_kwargs.allow_val_change  # a resumed run's config is another
    drawing = cfg.default_hooks.visualization
    assert (drawing.type, drawing[switch]) == (hook, True)


@pytest.mark.parametrize(('said', 'interval'), [({}, 3), (dict(interval=50), 50)])
def test_short_validations_are_drawn_unless_the_config_says_how_often(said, interval):
    hook = type('SegVisualizationHook', (), dict(interval=50))()
    loop = SimpleNamespace(dataloader=[None] * 20)
    cfg = Config(dict(default_hooks=dict(visualization=said)))
    options.draw_in_each_validation(SimpleNamespace(cfg=cfg, val_loop=loop, hooks=[hook]))
    assert hook.interval == interval


def test_number_format_of_mixed_precision(monkeypatch):
    cfg = config(optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16'))
    options.use_amp(cfg, 'bfloat16')
    assert 'dtype' not in cfg.optim_wrapper
    assert cfg.gpu.amp_dtype == 'bfloat16'
    monkeypatch.setattr(options.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match='--amp-dtype float16 needs a GPU'):
        options.use_amp(config(), 'float16')
    with pytest.raises(UserError, match='--amp cannot replace the optim_wrapper MyWrapper'):
        options.use_amp(config(optim_wrapper=dict(type='MyWrapper')))


def test_averaging_is_added_once_and_includes_batch_norms():
    cfg = config(custom_hooks=[dict(type='SyncBuffersHook')])
    options.average_weights(cfg)
    options.average_weights(cfg)
    assert [hook.type for hook in cfg.custom_hooks] == ['scopevit.SyncBuffersHook', 'EMAHook']


def test_float16_after_a_run_in_bfloat16_scales_its_loss_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))))
    options.use_amp(cfg, 'float16')
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.gpu.amp_dtype == 'float16'


def test_names_with_a_scope_are_known():
    cfg = Config(dict(custom_hooks=[dict(type='mmpretrain.EMAHook')]))
    options.average_weights(cfg)
    assert len(cfg.custom_hooks) == 1


def test_a_logger_for_a_config_without_hooks(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: True)
    cfg = Config(dict(default_scope='mmdet'))
    options.log_to(cfg, ['tensorboard'])
    assert cfg.default_hooks.visualization.draw


def test_a_runner_of_ones_own_may_need_other_settings():
    defaults = dict(amp=False, amp_dtype=None, ema=False, accumulate=1, log_to=None, auto_scale_lr=False)
    args = SimpleNamespace(config='own.py', seed=1, deterministic=False, resume=None, pretrained=None, **defaults)
    cfg = Config(dict(runner_type='OwnRunner', model=dict(type='Own')))
    options.merge_arguments(cfg, args)
    assert cfg.randomness == dict(seed=1)
    with pytest.raises(UserError, match='does not train'):
        options.merge_arguments(Config(dict(model=dict(type='Own'))), args)
