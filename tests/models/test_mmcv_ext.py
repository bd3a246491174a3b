"""mmcv's operators without a compiled mmcv: against plain formulas, and against the compiled ones where they are."""

import importlib
import subprocess
import sys

import mmcv.ops
import pytest
import torch

from helpers import COMPILED_MMCV, ROOT
from reference import plain_mmcv
from scopevit.models.ops import mmcv_ext
from scopevit.utils.errors import UserError

# By the modules of mmcv.ops that call them.
MODULES = (
    *('nms', 'roi_align', 'deform_conv', 'modulated_deform_conv', 'psa_mask'),
    *('focal_loss', 'masked_conv', 'multi_scale_deform_attn'),
)
NO_CPU_KERNEL = ('sigmoid_focal_loss', 'masked_conv2d')  # in mmcv


@pytest.fixture
def ours(monkeypatch):
    """mmcv.ops with the stand-in, whatever is installed."""
    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f'mmcv.ops.{name}'), 'ext_module', mmcv_ext)


def boxes(count=60, seed=0, tie=True):
    generator = torch.Generator().manual_seed(seed)
    corner, size = (torch.rand(count, 2, generator=generator) * scale for scale in (60, 40))
    scores = torch.rand(count, generator=generator)
    if tie:
        scores[5] = scores[4]
    return torch.cat([corner, corner + size + 1], 1), scores


def regions():
    box, _ = boxes(6)
    outside = torch.tensor([[-20.0, -9, 10, 12], [50, 60, 200, 300], [7, 7, 7, 7]])
    box = torch.cat([box, outside])
    return torch.cat([torch.arange(len(box))[:, None] % 2, box], 1)


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def deform_case(groups, deform_groups, stride, dilation, with_bias=True):
    size = (9 + 2 * dilation - 2 * dilation - 1) // stride + 1
    input, weight = random(2, 4, 9, 9), random(6, 4 // groups, 3, 3, seed=1)
    offset = random(2, 2 * deform_groups * 9, size, size, seed=2, scale=2.0)
    mask = random(2, deform_groups * 9, size, size, seed=3).sigmoid()
    bias = random(6, seed=4) if with_bias else None
    return [input, offset, mask, weight, bias], (stride, dilation, dilation, groups, deform_groups)


def cases(tie=True):
    """Name of the function, tensors that may have gradients, further arguments."""
    box, scores = boxes(tie=tie)
    for threshold in (0.3, 0.7):
        for offset in (0, 1):
            yield 'nms', [], (box, scores, threshold, offset)
        yield 'nms_match', [], (torch.cat([box, scores[:, None]], 1), threshold)
    for method in ('naive', 'linear', 'gaussian'):
        for offset in (0, 1):
            yield 'soft_nms', [], (box, scores, 0.3, 0.5, 0.05, method, offset)
    for sampling in (0, 2):
        for aligned in (True, False):
            yield 'roi_align', [random(2, 3, 20, 24)], (regions(), (3, 4), 0.25, sampling, 'avg', aligned)
    for groups, deform_groups, stride, dilation in ((1, 1, 1, 1), (2, 2, 1, 2), (1, 4, 2, 1)):
        tensors, options = deform_case(groups, deform_groups, stride, dilation)
        input, offset, mask, weight, bias = tensors
        yield 'deform_conv2d', [input, offset, weight], options
        yield 'modulated_deform_conv2d', tensors, options
    tensors, options = deform_case(1, 1, 1, 1, with_bias=False)
    yield 'modulated_deform_conv2d', tensors, options
    # Offsets and masks of another map, twice the size, as DyHead passes them on.
    (input, offset, mask, weight, bias), options = deform_case(1, 1, 1, 1)
    yield 'modulated_deform_conv2d', [input[:, :, :5, :4].clone(), offset, mask, weight, bias], (*options[:4], 1)
    for psa_type in (0, 1):
        for mask_size in ((5, 7), (11, 13)):
            yield 'psa_mask', [random(2, mask_size[0] * mask_size[1], 4, 6)], (psa_type, mask_size)
    logits, classes = random(8, 5, scale=3.0), torch.arange(8) % 5
    with_background = torch.arange(8) % 6
    for reduction in ('none', 'mean', 'sum'):
        yield 'sigmoid_focal_loss', [logits], (with_background, 1.5, 0.3, None, reduction)
    yield 'sigmoid_focal_loss', [logits], (classes, 2.0, 0.25, torch.arange(1.0, 6), 'sum')
    mask = (random(1, 6, 7, seed=5) > 0).float()
    yield 'masked_conv2d', [], (random(1, 3, 6, 7), mask, random(4, 3, 3, 3, seed=1), random(4, seed=2), 1)


def run(module, name, tensors, options, device='cpu'):
    """Results of a function, and the gradients of its tensors."""
    move = [x.to(device) if torch.is_tensor(x) else x for x in options]
    inputs = [None if x is None else x.detach().clone().to(device).requires_grad_() for x in tensors]
    function = getattr(module, name)
    output = getattr(function, name, function)(*inputs, *move)  # mmcv.ops.psa_mask is a module
    if not tensors:
        output = output if isinstance(output, (list, tuple)) else [output]
        return [torch.as_tensor(x).cpu() for x in output]
    weights = torch.linspace(-1, 2, output.numel()).view_as(output).to(device)
    (output * weights).sum().backward()
    return [x.detach().cpu() for x in (output, *(x.grad for x in inputs if x is not None))]


def close(ours, reference, **tolerance):
    assert len(ours) == len(reference)
    for one, other in zip(ours, reference):
        torch.testing.assert_close(one, other, check_dtype=False, **tolerance)


def name_of(case):
    name, _, options = case
    return '-'.join([name, *(str(x) for x in options if not torch.is_tensor(x))])


@pytest.mark.parametrize('case', cases(), ids=name_of)
def test_operators_are_those_of_the_plain_formulas(case, ours):
    # Weights and offsets of up to a hundred summands in another order.
    close(run(mmcv.ops, *case), run(plain_mmcv, *case), rtol=1e-4, atol=2e-5)


@pytest.mark.compiled_mmcv
@pytest.mark.parametrize('case', [case for case in cases() if case[0] not in NO_CPU_KERNEL], ids=name_of)
def test_operators_are_those_of_compiled_mmcv(case, monkeypatch):
    compiled = run(mmcv.ops, *case)
    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f'mmcv.ops.{name}'), 'ext_module', mmcv_ext)
    exact = case[0] in ('nms', 'nms_match', 'roi_align', 'psa_mask')
    close(run(mmcv.ops, *case), compiled, **(dict(rtol=0, atol=0) if exact else dict(rtol=1e-4, atol=1e-5)))


@pytest.mark.gpu
@pytest.mark.compiled_mmcv
@pytest.mark.parametrize('case', cases(), ids=name_of)
def test_operators_on_a_gpu_are_those_of_compiled_mmcv(case, monkeypatch):
    compiled = run(mmcv.ops, *case, device='cuda')
    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f'mmcv.ops.{name}'), 'ext_module', mmcv_ext)
    close(run(mmcv.ops, *case, device='cuda'), compiled, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize('case', cases(tie=False), ids=name_of)
def test_operators_on_a_gpu_are_those_on_the_cpu(case, ours):
    """But for equal scores, which each sorts in its own way."""
    close(run(mmcv.ops, *case, device='cuda'), run(mmcv.ops, *case), rtol=1e-3, atol=1e-4)


def attention_case():
    shapes = [(6, 4), (3, 2)]
    value = random(2, sum(H * W for H, W in shapes), 2, 4)
    locations = random(2, 5, 2, 2, 3, 2, seed=1).sigmoid() * 1.4 - 0.2  # some outside
    weights = random(2, 5, 2, 6, seed=2).softmax(-1).view(2, 5, 2, 2, 3)
    return shapes, [value, locations, weights]


def test_deformable_attention_is_that_of_the_plain_formula(ours):
    """On GPUs mmcv calls the operator; on CPUs this has to be done for it."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes, tensors = attention_case()

    class Functions:
        @staticmethod
        def operator(value, locations, weights):
            starts = torch.tensor([0, 24])
            return MultiScaleDeformableAttnFunction.apply(value, torch.tensor(shapes), starts, locations, weights, 64)

        @staticmethod
        def plain(value, locations, weights):
            return plain_mmcv.multi_scale_deformable_attention(value, shapes, locations, weights)

    close(run(Functions, 'operator', tensors, ()), run(Functions, 'plain', tensors, ()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['roi_align', 'deform_conv2d', 'modulated_deform_conv2d', 'sigmoid_focal_loss'])
def test_operators_take_half_precision(name, ours):
    """As mixed precision hands it to them; computed in float32, so that rounding the result is all that is lost."""
    _, tensors, options = next(case for case in cases() if case[0] == name)
    halved = [x.bfloat16() for x in tensors]
    rounded = [x.float() for x in halved]
    close(run(mmcv.ops, name, halved, options), run(mmcv.ops, name, rounded, options), rtol=0.02, atol=0.05)


def test_batched_nms_keeps_classes_apart(ours):
    box, scores = boxes(8)
    box[:] = box[0]
    _, kept = mmcv.ops.batched_nms(box, scores, torch.arange(8) % 3, dict(type='nms', iou_threshold=0.5))
    assert sorted((kept % 3).tolist()) == [0, 1, 2]


@pytest.mark.compiled_mmcv
@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
def test_batched_nms_is_that_of_compiled_mmcv(kind, monkeypatch):
    box, scores = boxes(400)
    if kind == 'soft_nms':
        scores[5] += 0.001  # among equal scores its order is that of a C++ array from which elements are removed
    arguments = (box, scores, torch.arange(400) % 7, dict(type=kind, iou_threshold=0.5))
    compiled = mmcv.ops.batched_nms(*arguments)
    monkeypatch.setattr(importlib.import_module('mmcv.ops.nms'), 'ext_module', mmcv_ext)
    close(mmcv.ops.batched_nms(*arguments), compiled)


def test_without_boxes_nothing_is_kept(ours):
    none = torch.zeros(0, 4), torch.zeros(0)
    assert len(mmcv.ops.nms(*none, 0.5)[1]) == len(mmcv.ops.soft_nms(*none)[1]) == 0


@pytest.mark.parametrize('name', ['carafe_forward', 'nms_rotated', 'roi_pool_forward'])
def test_what_is_missing_is_named_when_it_is_called(name):
    operator = getattr(mmcv_ext, name)
    with pytest.raises(UserError, match=rf'operator {name} needs a compiled mmcv.*scopevit install-mmcv'):
        operator(1, two=2)


def test_largest_values_of_regions_are_refused_by_name(ours):
    with pytest.raises(UserError, match="roi_align with pool_mode='max' needs a compiled mmcv"):
        mmcv.ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), 1.0, 0, 'max')


@pytest.mark.gpu
def test_deterministic_training_on_regions_runs(ours):
    case = next(case for case in cases() if case[0] == 'roi_align')
    try:
        torch.use_deterministic_algorithms(True)
        result = run(mmcv.ops, *case, device='cuda')
    finally:
        torch.use_deterministic_algorithms(False)
    close(result, run(mmcv.ops, *case), rtol=1e-3, atol=1e-4)


def test_compiled_operators_come_first():
    import mmcv._ext

    assert mmcv._ext.__file__.endswith('.so') == COMPILED_MMCV


@pytest.mark.parametrize('first', ['import scopevit', 'import mmcv\nimport scopevit'])
def test_importing_scopevit_is_enough(first):
    """In a checkout that is not installed, too: without the .pth files of this environment."""
    site = next(path for path in sys.path if path.endswith('site-packages'))
    script = f'import sys; sys.path += {[str(ROOT), site]!r}\n{first}\nfrom mmcv.ops import nms'
    result = subprocess.run([sys.executable, '-S', '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_scopevit_does_not_import_mmcv():
    script = 'import sys, scopevit; assert "mmcv" not in sys.modules and "torchvision" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', script]).returncode == 0


def test_in_an_environment_with_scopevit_the_toolboxes_find_operators_by_themselves(tmp_path):
    """As with the training script of a toolbox, which imports that first."""
    script = (
        'import sys; assert not {"torch", "scopevit"} & set(sys.modules), "starting Python must not import them"\n'
        'from mmcv.ops import nms; import mmcv._ext; print(mmcv._ext.__file__)'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith('.so' if COMPILED_MMCV else 'models/ops/mmcv_ext.py')
