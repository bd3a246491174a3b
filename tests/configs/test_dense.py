"""Detection, segmentation and pose configs: channels, strides, and what their metafiles count."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT
from scopevit.analysis import count
from scopevit.apis.model import build_model, image_size, tensor_call
from scopevit.models import ScopeViT

FOLDERS = ('detection', 'segmentation', 'pose')
CONFIGS = sorted(
    path for folder in FOLDERS for path in (ROOT / 'configs' / folder).glob('*.py') if '_custom' not in path.stem
)
ENTRIES = {
    model['Name']: model
    for folder in FOLDERS
    for model in yaml.safe_load((ROOT / 'configs' / folder / 'metafile.yml').read_text())['Models']
}
PARAMETERS = {model['Config']: model['Metadata']['Parameters'] for model in ENTRIES.values()}


def load(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_and_channels_and_strides_agree(path):
    cfg = load(path)
    model = MODELS.build(cfg.model)
    backbone = model.backbone
    assert isinstance(backbone, ScopeViT)
    channels = list(backbone.feature_channels)
    if cfg.model.get('neck'):
        assert cfg.model.neck.in_channels == channels
    else:
        head = cfg.model.get('decode_head') or cfg.model.get('panoptic_head') or cfg.model.head
        assert head.in_channels == (channels if isinstance(head.in_channels, list) else channels[-1])
    if cfg.model.get('auxiliary_head'):
        assert cfg.model.auxiliary_head.in_channels == channels[cfg.model.auxiliary_head.in_index]
    # The strides that heads assume are those of the maps they get.
    strides = list(backbone.feature_strides)
    if 'retinanet' in path.stem:
        assert cfg.model.bbox_head.anchor_generator.strides[: len(strides)] == strides
    elif 'mask-rcnn' in path.stem:
        assert cfg.model.rpn_head.anchor_generator.strides[: len(strides)] == strides
        assert cfg.model.roi_head.mask_roi_extractor.featmap_strides == strides
    elif 'mask2former' in path.stem:
        assert head.strides == strides
    elif '_fpn_' in path.stem:
        assert cfg.model.decode_head.feature_strides == strides
    assert PARAMETERS[str(path.relative_to(ROOT))] == sum(p.numel() for p in model.parameters())


def test_regions_are_cut_from_the_maps_as_they_are():
    """mmcv's RoIAlign ignores strides: on maps in another memory format it is wrong without a word."""
    path = next(path for path in CONFIGS if path.stem == 'mask-rcnn_scopevit-xtiny_fpn_1x_coco')
    model = MODELS.build(load(path).model).eval()
    boxes = torch.tensor([[0, 10.0, 20.0, 60.0, 90.0], [0, 3.0, 5.0, 120.0, 100.0]])
    with torch.no_grad():
        maps = model.extract_feat(torch.rand(1, 3, 128, 160))
        regions = model.roi_head.bbox_roi_extractor(maps[:4], boxes)
        expected = model.roi_head.bbox_roi_extractor(
            [x.clone(memory_format=torch.contiguous_format) for x in maps[:4]], boxes
        )
    assert (regions - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_metafiles_name_every_config():
    assert sorted(PARAMETERS) == sorted(str(path.relative_to(ROOT)) for path in CONFIGS)


FIRST, *OTHERS = [name for name in ENTRIES if name.startswith('mask-rcnn_')]


# Mask R-CNN's second stage depends on values, so one of them runs for real, as do DINO and Mask2Former: seconds for
# each. Cascade Mask R-CNN's three stages take too long for a test; tools/analysis/get_flops.py counts them.
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow) if re.search('mask-rcnn|dino|mask2former', name) else name
        for name in ENTRIES
        if '_ms-3x_' not in name and name not in OTHERS and 'cascade' not in name
    ],
)
def test_metafile_macs_are_true(name):
    """At the sizes that the metafiles' first lines name."""
    cfg = load(ROOT / ENTRIES[name]['Config'])
    size = {'detection': (800, 1280), 'segmentation': (512, 2048)}.get(Path(ENTRIES[name]['Config']).parent.name)
    height, width = size or image_size(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    counted = count(model, torch.rand(1, 3, height, width), call=tensor_call(model))
    same = [name, name.replace('_1x_', '_ms-3x_')]  # another schedule, the same model
    found = {tuple(ENTRIES[n]['Metadata'][key] for key in ('Image Size', 'FLOPs')) for n in same if n in ENTRIES}
    assert found == {(f'{height}x{width}', counted.macs)}


def test_mask_rcnns_differ_by_backbone_and_neck_alone():
    """One of them is counted whole; the maps of all can be counted without computing."""
    heads = set()
    for name in (FIRST, *OTHERS):
        if '_ms-3x_' in name or 'as-run' in name:  # other recipes, the same models
            same = re.sub('_ms-3x_|_1x-as-run_', '_1x_', name)
            assert ENTRIES[name]['Metadata']['FLOPs'] == ENTRIES[same]['Metadata']['FLOPs']
            continue
        model = build_model(load(ROOT / ENTRIES[name]['Config']))
        maps = count(model, torch.rand(1, 3, 800, 1280), call=lambda model, x: model.extract_feat(x)).macs
        heads.add(ENTRIES[name]['Metadata']['FLOPs'] - maps)
    assert len(heads) == 1
