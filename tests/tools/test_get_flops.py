"""Counting the models of configs, as a user does."""

import re

import pytest

from helpers import ROOT, fails_cleanly, tool_here

CLASSIFIER = ROOT / 'configs' / 'classification' / 'scopevit-tiny_8xb128-300e_in1k-256px.py'
MASK_RCNN = ROOT / 'configs' / 'detection' / 'mask-rcnn_scopevit-xtiny_fpn_1x_coco.py'


def flops(*words):
    return tool_here('analysis/get_flops.py', *words)


def rows(result):
    """Parameters and MACs (in millions) of the parts in a table."""
    assert result.returncode == 0, result.stderr
    cells = [re.split(r' *\| *', line.strip('| ')) for line in result.stdout.splitlines() if line.startswith('|')]
    return {
        name: (int(parameters.replace(',', '')), float(macs[:-2].replace(',', '')))
        for name, _, parameters, macs, _ in cells[2:]
    }


def test_scopevit():
    result = flops(CLASSIFIER)
    found = rows(result)
    assert found['(all)'] == (8006716, 1955.3)
    assert found['backbone'] == (7749716, 1955.1)
    assert found['head'][0] == 257000
    assert list(found)[2:6] == [f'stages.{i}' for i in range(4)]
    assert '1,955,347,776 MACs (0.112 G conv, 1.461 G linear, 0.382 G matmul)' in result.stdout
    assert 'One image of 256x256' in result.stdout
    assert 'multiply-accumulates of convolutions, linear layers and matrix products' in result.stdout


def test_options():
    found = rows(flops(CLASSIFIER, '--depth', 1, '--size', 64, 96, '--cfg-options', 'model.backbone.arch=xtiny'))
    assert list(found) == ['(all)', 'backbone', 'head']
    assert found['backbone'][0] == 5030490


def test_mask_rcnn():
    """It runs for real: which proposals its second stage sees depends on values."""
    found = rows(flops(MASK_RCNN, '--size', 128, 160, '--depth', 1))
    assert list(found) == ['(all)', 'backbone', 'neck', 'rpn_head', 'roi_head']
    places = [32 * 40, 16 * 20, 8 * 10, 4 * 5]
    lateral = sum(n * 256 * channels for n, channels in zip(places, (32, 64, 128, 256)))
    assert found['neck'][1] == pytest.approx((lateral + sum(places) * 256 * 256 * 9) / 1e6, abs=0.05)
    anchors = sum(places) + 2 * 3
    assert found['rpn_head'][1] == pytest.approx(anchors * 256 * (256 * 9 + 3 + 12) / 1e6, abs=0.05)
    assert found['(all)'][1] == pytest.approx(sum(macs for _, macs in list(found.values())[1:]), abs=0.3)


def test_bad_input(tmp_path):
    fails_cleanly(flops('configs/missing.py'), 'does not exist')
    fails_cleanly(flops(CLASSIFIER, '--size', 0, 10), 'at least 1')
    mixer = 'mmpretrain::mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py'
    fails_cleanly(flops(mixer, '--size', 64, 64), 'does not run at 64x64', 'try another --size')
    config = tmp_path / 'config.py'
    config.write_text('lr = 1')
    fails_cleanly(flops(config), 'this config has no model')
    fails_cleanly(
        flops(CLASSIFIER, '--cfg-options', 'model.backbone.arch=huge'), 'cannot be built', 'xtiny, tiny, small'
    )
    fails_cleanly(flops(CLASSIFIER, '--cfg-options', 'test_dataloader=None'), 'give --size H W')
