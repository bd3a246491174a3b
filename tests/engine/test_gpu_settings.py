"""What training and testing on a GPU set, and their switches, told without a GPU; compiling the backbone."""

import copy
import json

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner

from helpers import ROOT, TOY, fails_cleanly, tool, tool_here
from scopevit import ScopeViT
from scopevit.engine import console
from scopevit.engine import gpu_settings as gpu
from scopevit.engine.launch import prepare
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

IMAGENET = 'classification/scopevit-tiny_8xb128-300e_in1k-256px.py'
ADE20K = 'segmentation/scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py'
COCO = 'detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py'
MASK2FORMER = 'segmentation/scopevit-tiny_mask2former_8xb2-160k_ade20k-512x512.py'
POSE = 'pose/td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py'
TF32 = 'multiplied in TF32'
BENCHMARK = 'cuDNN tries its algorithms'
ATTENTION = 'Attention leaves cuDNN out'


@pytest.fixture(autouse=True)
def backends_as_they_were():
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    before = cuda.matmul.allow_tf32, cudnn.allow_tf32, cuda.cudnn_sdp_enabled()
    cuda.enable_cudnn_sdp(True)
    yield
    cuda.matmul.allow_tf32, cudnn.allow_tf32 = before[:2]
    cuda.enable_cudnn_sdp(before[2])


@pytest.fixture(autouse=True)
def gpu_with_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: True)


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    logged = []
    monkeypatch.setattr(console, 'print_log', lambda message, logger, level: logged.append(message))
    return logged


def config(name=IMAGENET, **options):
    """A config of this repository with options such as those of --cfg-options, dots written as two underscores."""
    return load_config(str(ROOT / 'configs' / name), {key.replace('__', '.'): value for key, value in options.items()})


def with_amp(name=IMAGENET, **options):
    cfg = config(name, **options)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return cfg


def said(lines, words):
    return sum(words in line for line in lines)


def test_unknown_settings_and_values_are_named():
    with pytest.raises(UserError, match='sets gpu: tf23; the settings of gpu are tf32, amp_dtype, fused_optimizer, cu'):
        gpu.settle_gpu(config(gpu__tf23=True))
    with pytest.raises(UserError, match="gpu.amp_dtype must be one of auto, bfloat16, float16, but is 'half'"):
        gpu.settle_gpu(config(gpu__amp_dtype='half'))
    with pytest.raises(UserError, match="gpu.tf32 must be one of True, False, but is 'auto'"):
        gpu.settle_gpu(config(gpu__tf32='auto'))
    with pytest.raises(UserError, match='sets gpu: True; the settings'):
        gpu.settle_gpu(config(gpu=True))


def test_saved_config_shows_the_settings():
    cfg = config(gpu__tf32=False)
    gpu.settle_gpu(cfg)
    assert cfg.gpu == dict(
        tf32=False,
        amp_dtype='auto',
        fused_optimizer=True,
        cudnn_benchmark='auto',
        cudnn_attention='auto',
        workers='auto',
    )
    assert 'tf32=False' in cfg.pretty_text


@pytest.mark.parametrize('available', [True, False])
def test_only_a_gpu_is_settled(available, monkeypatch, tmp_path, lines):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: available)
    args = Config(dict(work_dir=str(tmp_path), launcher='none', local_rank=0))
    cfg = config()
    prepare(cfg, args)
    assert ('tf32' in cfg.gpu) == available == bool(lines)
    with pytest.raises(UserError, match='sets gpu: tf23'):
        prepare(config(gpu__tf23=True), args)


def workers(cfg):
    return [cfg[f'{split}_dataloader'].num_workers for split in ('train', 'val', 'test')]


@pytest.mark.parametrize(
    ('cores', 'processes', 'number'), [(16, None, 15), (192, '8', 16), (64, '8', 7), (4, '8', 1), (48, '8', 5)]
)
def test_workers_follow_from_the_cores_of_a_process(cores, processes, number, monkeypatch, lines):
    monkeypatch.setattr(gpu, 'usable_cores', lambda: cores)
    if processes:
        monkeypatch.setenv('LOCAL_WORLD_SIZE', processes)
    cfg = config()
    gpu.settle_gpu(cfg)
    assert workers(cfg) == [number] * 3
    assert said(lines, f'Data loaders have {number} workers') == (number != 5)
    assert number == 5 or said(lines, '(gpu.workers=config: 5)')


def test_workers_that_someone_has_chosen_stay(monkeypatch, lines, tmp_path):
    monkeypatch.setattr(gpu, 'usable_cores', lambda: 16)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for name, options, expected in (
        (IMAGENET, dict(gpu__workers='config'), [5, 5, 5]),
        (IMAGENET, dict(train_dataloader__num_workers=3), [3, 15, 15]),
        (IMAGENET, dict(val_dataloader__num_workers=0), [15, 0, 15]),
        (COCO, {}, [2, 2, 2]),
        (COCO, dict(gpu__workers='auto'), [15, 15, 15]),
    ):
        given = {key.replace('__', '.'): value for key, value in options.items()}
        cfg = config(name, **options)
        prepare(cfg, Config(dict(work_dir=str(tmp_path), launcher='none', local_rank=0, cfg_options=given)))
        assert workers(cfg) == expected


def test_going_on_in_float16_from_bfloat16():
    """A scaler that is switched off saves nothing, and one that is not refuses that."""
    saved, scaled = (dict(optimizer=dict(loss_scaler=state)) for state in ({}, dict(scale=1.0)))
    in_half, without = (dict(type='AmpOptimWrapper', loss_scale=scale) for scale in ('dynamic', dict(enabled=False)))
    with pytest.raises(UserError, match='trained in bfloat16, without loss scaling.*go on with --amp-dtype bfloat16'):
        gpu.require_loss_scale(Config(dict(optim_wrapper=in_half)), saved)
    gpu.require_loss_scale(Config(dict(optim_wrapper=in_half)), scaled)
    gpu.require_loss_scale(Config(dict(optim_wrapper=without)), saved)
    gpu.require_loss_scale(Config(dict(optim_wrapper=dict(type='OptimWrapper'))), saved)


def test_only_the_first_process_logs(monkeypatch, lines):
    monkeypatch.setenv('RANK', '1')
    gpu.settle_gpu(config())
    assert not lines
    assert torch.backends.cuda.matmul.allow_tf32


def test_tf32(lines):
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu.settle_gpu(config(randomness__deterministic=True))  # it is
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    gpu.settle_gpu(config())
    assert said(lines, TF32) == 1  # the first time alone changed something
    gpu.settle_gpu(config(gpu__tf32=False))
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert said(lines, 'in full precision') == 2


def test_tf32_beside_the_newer_setting():
    if hasattr(torch.backends.cuda.matmul, 'fp32_precision'):  # PyTorch 2.9
        torch.backends.cuda.matmul.fp32_precision = 'ieee'
    gpu.settle_gpu(config())
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize('name', [IMAGENET, ADE20K])
def test_mixed_precision_is_bfloat16_without_loss_scaling(name, lines):
    cfg = with_amp(name)
    gpu.settle_gpu(cfg)
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.optim_wrapper.loss_scale == dict(enabled=False)
    assert said(lines, 'Mixed precision runs in bfloat16, without loss scaling') == 1


@pytest.mark.parametrize('name', [COCO, POSE, MASK2FORMER])
def test_mixed_precision_of_boxes_and_joints_is_float16(name, lines):
    cfg = with_amp(name)
    gpu.settle_gpu(cfg)
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')
    assert said(lines, 'Mixed precision runs in float16 (models of mm') == 1
    cfg = with_amp(name, gpu__amp_dtype='bfloat16')
    gpu.settle_gpu(cfg)
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('bfloat16', dict(enabled=False))
    assert said(lines, '--amp-dtype bfloat16 to try the other') == 1
    assert said(lines, "without loss scaling (--amp-dtype or the config's gpu.amp_dtype)") == 1


def test_mixed_precision_of_older_gpus(monkeypatch, lines):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    cfg = with_amp()
    gpu.settle_gpu(cfg)
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')
    assert said(lines, 'this GPU has no bfloat16') == 1


def test_mixed_precision_that_is_chosen(lines):
    cfg = with_amp(gpu__amp_dtype='float16')
    gpu.settle_gpu(cfg)
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')
    cfg = with_amp(optim_wrapper__dtype='float16')  # the config's own
    gpu.settle_gpu(cfg)
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')
    assert said(lines, 'Mixed precision') == 1
    cfg = config(gpu__amp_dtype='float16')  # without --amp
    gpu.settle_gpu(cfg)
    assert 'dtype' not in cfg.optim_wrapper


def test_fused_optimizer(lines):
    for name, kind in ((IMAGENET, 'AdamW'), (POSE, 'Adam')):
        cfg = config(name)
        gpu.settle_gpu(cfg)
        assert cfg.optim_wrapper.optimizer.fused
        assert said(lines, f'{kind} updates parameters of equal settings in one kernel') == 1
    for options in (
        dict(gpu__fused_optimizer=False),
        dict(optim_wrapper__optimizer__foreach=True),
        dict(optim_wrapper__optimizer__type='Lamb'),
        dict(optim_wrapper__type='ApexOptimWrapper'),
    ):
        cfg = config(**options)
        gpu.settle_gpu(cfg)
        assert 'fused' not in cfg.optim_wrapper.optimizer
    cfg = config(optim_wrapper__optimizer__fused=False)
    gpu.settle_gpu(cfg)
    assert cfg.optim_wrapper.optimizer.fused is False
    assert said(lines, 'in one kernel') == 2


def test_fused_optimizer_with_several_or_none(lines):
    several = dict(generator=dict(optimizer=dict(type='Adam')), critic=dict(optimizer=dict(type='Adam')))
    for wrapper in (dict(constructor='Several', **several), None):
        cfg = Config(dict(optim_wrapper=wrapper))
        gpu.settle_gpu(cfg)
        assert cfg.optim_wrapper == (wrapper and dict(constructor='Several', **several))
    assert not said(lines, 'in one kernel')


@pytest.mark.parametrize(
    ('name', 'trained', 'tested'),
    [(IMAGENET, True, True), (ADE20K, True, False), (COCO, False, False), (POSE, True, True)],
)
def test_which_images_have_one_size(name, trained, tested):
    cfg = config(name)
    sizes = [gpu.has_one_size(cfg, split) for split in ('train', 'val', 'test')]
    assert sizes == [trained, tested, tested]


@pytest.mark.parametrize(
    ('pipeline', 'one_size'),
    [
        ([dict(type='Resize', scale=32)], True),
        ([dict(type='Resize', scale=(64, 32), keep_ratio=True), dict(type='PackInputs')], False),
        ([dict(type='Resize', scale_factor=0.5)], False),
        ([dict(type='ResizeEdge', scale=32), dict(type='mmpretrain.CenterCrop', crop_size=32)], True),
        ([dict(type='torchvision/RandomResizedCrop', size=32)], True),
        ([dict(type='LoadImageFromFile')], False),
    ],
)
def test_sizes_behind_a_pipeline(pipeline, one_size):
    data = dict(type='CustomDataset', pipeline=pipeline)
    wrapped = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=data), data])
    for dataset in (data, wrapped):
        assert gpu.has_one_size(Config(dict(train_dataloader=dict(dataset=dataset)))) is one_size
    mixed = Config(dict(train_dataloader=dict(dataset=dict(datasets=[data, dict(pipeline=[])]))))
    assert not gpu.has_one_size(mixed)
    resized = dict(batch_augments=[dict(type='BatchSyncRandomResize')])
    cfg = Config(dict(model=dict(data_preprocessor=resized), train_dataloader=dict(dataset=data)))
    assert not gpu.has_one_size(cfg)


def test_images_that_are_mixed_keep_their_size():
    mixing = dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)]))  # of mmpretrain
    cfg = config(model__data_preprocessor=mixing)
    assert gpu.has_one_size(cfg)


def test_types_that_are_classes():
    class CenterCrop:
        pass

    dataset = dict(pipeline=[dict(type=CenterCrop)])
    preprocessor = dict(batch_augments=[dict(type=CenterCrop)])
    cfg = ConfigDict(train_dataloader=dict(dataset=dataset), model=dict(data_preprocessor=preprocessor))
    assert gpu.has_one_size(cfg)


def test_sizes_without_data():
    assert not gpu.has_one_size(Config(dict(train_dataloader=None)))
    assert not gpu.has_one_size(Config(dict(train_dataloader=[dict(dataset=dict())])))


@pytest.mark.parametrize(('name', 'expected'), [(IMAGENET, True), (ADE20K, True), (COCO, False), (POSE, True)])
def test_cudnn_benchmark(name, expected, lines):
    cfg = config(name)
    was = cfg.env_cfg.cudnn_benchmark
    gpu.settle_gpu(cfg)
    assert cfg.env_cfg.cudnn_benchmark is expected
    assert said(lines, f'{BENCHMARK} for each shape, in place of env_cfg.cudnn_benchmark=False') == (
        expected and not was
    )


def test_cudnn_benchmark_that_is_chosen(lines):
    for options, expected in (
        (dict(gpu__cudnn_benchmark=False), False),
        (dict(gpu__cudnn_benchmark=False, env_cfg__cudnn_benchmark=True), False),
        (dict(randomness__deterministic=True), False),
    ):
        cfg = config(**options)
        gpu.settle_gpu(cfg)
        assert cfg.env_cfg.cudnn_benchmark is expected
    assert said(lines, 'does not try its algorithms, in place of env_cfg.cudnn_benchmark=True') == 3
    for options in (dict(gpu__cudnn_benchmark=True), dict(env_cfg__cudnn_benchmark=True)):
        cfg = config(COCO, **options)
        gpu.settle_gpu(cfg)
        assert cfg.env_cfg.cudnn_benchmark
    assert said(lines, BENCHMARK) == 1


def test_cudnn_attention(monkeypatch, lines):
    enabled = torch.backends.cuda.cudnn_sdp_enabled
    gpu.settle_gpu(config())
    assert enabled()
    gpu.settle_gpu(config(COCO))
    assert not enabled()
    assert said(lines, ATTENTION) == 1
    gpu.settle_gpu(config())  # what is switched off elsewhere stays off
    assert not enabled()
    gpu.settle_gpu(config(COCO, gpu__cudnn_attention=True))
    assert enabled()
    assert said(lines, 'Attention may use cuDNN') == 1
    gpu.settle_gpu(config(gpu__cudnn_attention=False))
    assert not enabled()


def test_testing_leaves_the_optimizer_and_decides_by_its_own_images(lines):
    cfg = with_amp(ADE20K, env_cfg__cudnn_benchmark=False)
    before = copy.deepcopy(cfg.optim_wrapper)
    gpu.settle_gpu(cfg, split='test')
    assert cfg.optim_wrapper == before
    assert not cfg.env_cfg.cudnn_benchmark
    assert said(lines, ATTENTION) == 1


@pytest.mark.parametrize(('name', 'dynamic'), [(IMAGENET, False), (ADE20K, None), (COCO, True), (POSE, False)])
def test_compiled_for_one_size_or_for_all(name, dynamic):
    assert gpu._varying_sizes(config(name), ('train', 'val'), batch_varies=False) is dynamic


def test_batches_of_persons_are_compiled_for_one_number_first_and_then_for_all():
    assert gpu._varying_sizes(config(POSE), ('test',), batch_varies=True) is None
    assert gpu._varying_sizes(config(COCO), ('test',), batch_varies=True) is True


def test_compiling_would_undo_checkpointing():
    model = Backbone()
    model.backbone = ScopeViT('xtiny', out_indices=(0,), with_cp=True)
    with pytest.raises(UserError, match='has no with_cp: leave one of them out'):
        gpu.compile_backbone(model, config(), 'train')


def test_compiling_warns_of_synchronised_batch_norms(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **options: None)
    runner = Runner(Backbone(), str(tmp_path), experiment_name=tmp_path.name)
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    monkeypatch.setattr(gpu.MMLogger, 'get_current_instance', lambda: runner.logger)
    monkeypatch.setattr(gpu, 'get_world_size', lambda: 2)
    gpu.compile_backbone(runner.model, runner.cfg, 'train')
    assert not warnings
    runner.model.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.SyncBatchNorm(2))
    gpu.compile_backbone(runner.model, runner.cfg, 'train')
    assert 'synchronised batch norms' in warnings[0]


class Backbone(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 2)
        self.head = torch.nn.Linear(2, 2)

    def forward(self, inputs, mode='tensor'):
        return self.head(self.backbone(inputs))


class NoBackbone(BaseModel):
    def forward(self, inputs, mode='tensor'):
        return inputs


def test_only_the_backbone_is_compiled_also_within_a_wrapper(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **options: compiled.append((self, options)))
    runner = Runner(Backbone(), str(tmp_path), experiment_name=tmp_path.name)
    backbone = runner.model.backbone
    gpu.compile_backbone(runner.model, runner.cfg, 'train', 'val')
    gpu.compile_backbone(torch.nn.DataParallel(runner.model), runner.cfg, 'test')
    assert compiled == [(backbone, dict(dynamic=True))] * 2  # without data, of unknown sizes


def test_copy_of_a_compiled_model_is_one_of_its_weights():
    """As EMAHook makes it."""
    model = Backbone()
    names = list(model.state_dict())
    model.backbone.compile(backend='eager')
    inputs = torch.randn(3, 2)
    average = copy.deepcopy(model)
    torch.testing.assert_close(average(inputs), model(inputs))
    assert list(average.state_dict()) == list(model.state_dict()) == names
    with torch.no_grad():
        average.backbone.weight.zero_()
    assert not torch.equal(average(inputs), model(inputs))


def test_compiling_a_model_without_a_backbone():
    with pytest.raises(UserError, match='^--compile compiles the backbone, but NoBackbone has no backbone'):
        gpu.compile_backbone(NoBackbone(), config(), 'test')


@pytest.mark.slow
def test_unknown_setting_ends_with_one_message(toy_options, tmp_path):
    result = tool_here('train.py', TOY, '--work-dir', tmp_path, *toy_options, 'gpu.tf23=True')
    fails_cleanly(result, 'sets gpu: tf23; the settings of gpu are tf32')


@pytest.mark.slow
def test_compiled_training_is_the_same_and_so_are_its_checkpoints(toy_options, tmp_path):
    config = tmp_path / 'toy_ema.py'
    config.write_text(
        f'_base_ = {str(TOY)!r}\n'
        'model = dict(backbone=dict(out_indices=(0,)), head=dict(in_channels=16))\n'  # one stage compiles faster
        "custom_hooks = [dict(type='EMAHook'), dict(type='SyncBuffersHook')]\n"
    )
    options = [*toy_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    options += ['train_dataloader.dataset.indices=32', 'val_dataloader.dataset.indices=32']  # two iterations each
    options += ['test_dataloader.dataset.indices=32']
    losses, saved, accuracy = [], [], []
    for words in ([], ['--compile']):
        folder = tmp_path / f'run{len(words)}'
        result = tool('train.py', config, '--work-dir', folder, *words, *options)
        assert ('Compiling the backbone; the first images' in result.stdout + result.stderr) == bool(words)
        scalars = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
        rows = list(map(json.loads, scalars))
        losses.append([row['loss'] for row in rows if 'loss' in row])
        validated = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row]  # of the average
        saved.append(read_checkpoint(folder / 'epoch_1.pth'))
        tool('test.py', config, folder / 'epoch_1.pth', '--work-dir', folder, *words, *options)
        accuracy.append([*validated, json.loads((folder / 'metrics.json').read_text())['accuracy/top1']])
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(accuracy[0]) == 2
    assert accuracy[1] == accuracy[0]
    for key in ('state_dict', 'ema_state_dict'):
        assert list(saved[0][key]) == list(saved[1][key])
        for name, value in saved[0][key].items():
            torch.testing.assert_close(saved[1][key][name], value, rtol=1e-4, atol=1e-5)
