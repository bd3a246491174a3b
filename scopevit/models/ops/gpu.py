"""Operators for NVIDIA GPUs, by kernels written in Triton: GSDA's attention, layer norm, a branch's closing, MLPs.

They are in ``torch.ops.scopevit``, and serve where the functions here say so, with gradients, under autocast and in
compiled models; elsewhere PyTorch computes the same functions. ``SCOPEVIT_TRITON=0`` in the environment switches them
off, ``all`` switches on those as well whose results no GPU has been compared with: depthwise convolutions.

Shape legend: as in layers/gsda.py.
"""

import importlib
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.errors import UserError
from .calls import is_plain_call

HEAD_CHANNELS = (16, 32, 64)
"""Channels d of a head for which there is a kernel."""
MOST_TOKENS = 64
"""Tokens T of a group: its logits are one tile."""
MOST_CHANNELS = 1024
"""Channels C of a row that a program normalises at once."""
MLP_CHANNELS, MLP_HIDDEN = (32, 64, 128, 256), 64
"""Channels C for which an MLP's branch has a kernel, and what the number of its hidden channels is a multiple of."""
DEPTHWISE_CHANNELS, DEPTHWISE_KERNELS = 16, (7, 5, 3)
"""What the channels of a part are a multiple of in a depthwise convolution, and the sides of its kernels."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def lacking_for_triton() -> str | None:
    """What this machine lacks for Triton, which compiles C when it first meets a GPU; None if nothing."""
    if not (os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')):
        return 'a C compiler'
    scheme = sysconfig.get_default_scheme().replace('posix_local', 'posix_prefix')  # of Debian, where Triton looks
    if not os.path.isfile(os.path.join(sysconfig.get_paths(scheme)['include'], 'Python.h')):
        return "Python's headers"
    return None


SWITCH = os.environ.get('SCOPEVIT_TRITON', '1')
IS_ON = (
    SWITCH in ('1', 'all')
    and hasattr(torch.compiler, 'is_exporting')  # PyTorch 2.7
    and torch.version.hip is None
    and importlib.util.find_spec('triton') is not None
    and lacking_for_triton() is None
)


def require_known_switch() -> None:
    """Make sure that the environment says of the kernels what there is to say; called where a model is built.

    Raises:
        UserError: If it does not.
    """
    if SWITCH not in ('0', '1', 'all'):
        raise UserError(f'SCOPEVIT_TRITON in the environment must be 0, 1 or all, but is {SWITCH!r}')


def _runs_on(device: torch.device) -> bool:
    """Whether Triton's kernels run on a GPU: of NVIDIA, compute capability 8.0 or newer; a constant to compilers."""
    return IS_ON and torch.cuda.get_device_properties(device).major >= 8


def serves(x: Tensor) -> bool:
    """Whether the operators here take ``x``: on a GPU that runs Triton's kernels, of a type that they know."""
    return is_plain_call(x) and x.device.type == 'cuda' and x.dtype in DTYPES and _runs_on(x.device)


def serves_attention(x: Tensor, heads: int, grid: int) -> bool:
    """Whether ``dilated_attention`` is to attend on a map (B, H, W, C): in half types, in which it was measured."""
    if not serves(x) or x.shape[3] // heads not in HEAD_CHANNELS or grid * grid > MOST_TOKENS:
        return False
    return x.dtype != torch.float32 or torch.is_autocast_enabled('cuda')


def serves_rows(x: Tensor) -> bool:
    """Whether ``layer_norm`` and ``close_branch`` take ``x``. A compiler fuses more than they do."""
    return not torch.compiler.is_compiling() and serves(x) and x.shape[-1] <= MOST_CHANNELS


def serves_mlp(x: Tensor, hidden: int) -> bool:
    """Whether ``mlp_branch`` takes ``x``, for so many hidden channels: in half types.

    In training in bfloat16 alone: what gamma * W2 is at first, 1e-8, float16 does not hold.
    """
    if not serves(x) or x.shape[-1] not in MLP_CHANNELS or hidden % MLP_HIDDEN:
        return False
    dtype = product_type(x)
    return dtype == torch.bfloat16 or (dtype == torch.float16 and not torch.is_grad_enabled())


def product_type(x: Tensor) -> torch.dtype:
    """In which a linear layer would take ``x``."""
    return torch.get_autocast_dtype('cuda') if torch.is_autocast_enabled('cuda') else x.dtype


def serves_depthwise(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether ``depthwise`` takes a map and these weights of its parts."""
    fits = (len(w) % DEPTHWISE_CHANNELS == 0 and w.shape[-1] in DEPTHWISE_KERNELS for w in weights)
    return SWITCH == 'all' and serves(x) and len(weights) <= len(DEPTHWISE_KERNELS) and all(fits)


def _attention_gradients(ctx, grad: Tensor) -> tuple:
    qkv, table = ctx.saved_tensors
    of_qkv, of_table = torch.ops.scopevit.dilated_attention_backward(grad, qkv, table, *ctx.rest)
    return of_qkv, of_table.to(table.dtype), None, None


def _norm_gradients(ctx, grad: Tensor) -> tuple:
    x, weight, bias = ctx.saved_tensors
    of_x, of_weight, of_bias = torch.ops.scopevit.layer_norm_backward(grad, x, weight, ctx.rest[0])
    return of_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None, None


def _close_gradients(ctx, grad: Tensor) -> tuple:
    x, branch, gamma, keep = ctx.saved_tensors
    of_branch, of_gamma = torch.ops.scopevit.close_branch_backward(grad, branch, gamma, keep)
    return grad.to(x.dtype), of_branch, of_gamma.to(gamma.dtype), None


def _fake_mlp(x: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    *_, w1, _, _, _, gamma, _, _, dtype, trains = inputs
    shape = (3, w1.numel()) if trains or w1.dtype != dtype else (0,)
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, gamma.dtype)), w1.new_empty(shape, dtype=dtype)


def _mlp_gradients(ctx, grad: Tensor, _: Tensor | None) -> tuple:
    x, *weights, keep, halves = ctx.saved_tensors
    norm_weight, norm_bias, w1, b1, w2, b2, gamma = weights
    needed = (norm_weight, norm_bias, b1, w2, b2, gamma, keep, halves, ctx.rest[0])
    of_x, of_norm, *others = torch.ops.scopevit.mlp_branch_backward(grad, x, *needed)
    gradients = (of.to(weight.dtype) for of, weight in zip((*of_norm.unbind(), *others), weights))
    return of_x, *gradients, None, None, None, None


def depthwise_side(side: int, kernel: int, stride: int) -> int:
    """Side of what ``depthwise`` makes of a map; the same for all odd kernels."""
    return (side + (stride + kernel - 2) // 2 * 2 - kernel) // stride + 1


def _fake_depthwise(x: Tensor, weights: list[Tensor], stride: int) -> Tensor:
    sides = (depthwise_side(side, weights[0].shape[-1], stride) for side in x.shape[1:3])
    return x.new_empty(x.shape[0], *sides, x.shape[3])


def _depthwise_gradients(ctx, grad: Tensor) -> tuple:
    x, *weights = ctx.saved_tensors
    of_x, of_weights = torch.ops.scopevit.depthwise_backward(grad, x, weights, *ctx.rest)
    return of_x, [of.to(weight.dtype) for of, weight in zip(of_weights, weights)], None


def _keep_inputs(ctx, inputs: tuple, output: Tensor | tuple) -> None:
    more = [] if isinstance(output, Tensor) else _flat(output[1:])
    ctx.mark_non_differentiable(*more)
    ctx.save_for_backward(*(x for x in _flat(inputs) if isinstance(x, Tensor)), *more)
    ctx.rest = tuple(x for x in _flat(inputs) if not isinstance(x, Tensor))


def _flat(values: Iterable) -> list:
    """Values, and those of lists among them."""
    return [item for value in values for item in (value if isinstance(value, list) else (value,))]


def _refuse_second_derivative(ctx, *grads: Tensor) -> None:
    raise NotImplementedError(
        "ScopeViT's GPU kernels have no second derivative; PyTorch has, with SCOPEVIT_TRITON=0 in the environment and "
        'torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH) around the forward pass'
    )


def _float32_like(*tensors: Tensor) -> tuple:
    return tuple(x.new_empty(x.shape, dtype=torch.float32) for x in tensors)


_LIBRARY = torch.library.Library('scopevit', 'FRAGMENT')
_OPERATORS: dict[str, tuple[str, Callable, Callable]] = {
    'dilated_attention(Tensor qkv, Tensor table, int heads, int grid) -> Tensor': (
        'dilated_attention.forward',
        lambda qkv, *rest: qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3),
        _attention_gradients,
    ),
    'dilated_attention_backward(Tensor grad, Tensor qkv, Tensor table, int heads, int grid) -> (Tensor, Tensor)': (
        'dilated_attention.backward',
        lambda grad, qkv, table, *rest: (qkv.new_empty(qkv.shape), *_float32_like(table)),
        _refuse_second_derivative,
    ),
    'layer_norm(Tensor x, Tensor weight, Tensor bias, float eps, ScalarType dtype) -> Tensor': (
        'narrow.layer_norm',
        lambda x, weight, bias, eps, dtype: x.new_empty(x.shape, dtype=dtype),
        _norm_gradients,
    ),
    'layer_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps) -> (Tensor, Tensor, Tensor)': (
        'narrow.layer_norm_backward',
        lambda grad, x, weight, eps: (x.new_empty(x.shape), *_float32_like(weight, weight)),
        _refuse_second_derivative,
    ),
    'close_branch(Tensor x, Tensor branch, Tensor gamma, Tensor keep) -> Tensor': (
        'narrow.close_branch',
        lambda x, branch, gamma, keep: x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, gamma.dtype)),
        _close_gradients,
    ),
    'close_branch_backward(Tensor grad, Tensor branch, Tensor gamma, Tensor keep) -> (Tensor, Tensor)': (
        'narrow.close_branch_backward',
        lambda grad, branch, gamma, keep: (branch.new_empty(branch.shape), *_float32_like(gamma)),
        _refuse_second_derivative,
    ),
    'mlp_branch(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor w1, Tensor b1, Tensor w2, Tensor b2, '
    'Tensor gamma, Tensor keep, float eps, ScalarType dtype, bool trains) -> (Tensor, Tensor)': (
        'mlp.branch',
        _fake_mlp,
        _mlp_gradients,
    ),
    'mlp_branch_backward(Tensor grad, Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor b1, Tensor w2, Tensor b2, '
    'Tensor gamma, Tensor keep, Tensor halves, float eps) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)': (
        'mlp.backward',
        lambda grad, x, nw, nb, b1, w2, b2, *rest: (
            x.new_empty(x.shape),
            nw.new_empty(2, len(nw), dtype=torch.float32),
            *_float32_like(w2.t().contiguous(), b1, w2, b2, b2),
        ),
        _refuse_second_derivative,
    ),
    'depthwise(Tensor x, Tensor[] weights, int stride) -> Tensor': (
        'depthwise.forward',
        _fake_depthwise,
        _depthwise_gradients,
    ),
    'depthwise_backward(Tensor grad, Tensor x, Tensor[] weights, int stride) -> (Tensor, Tensor[])': (
        'depthwise.backward',
        lambda grad, x, weights, stride: (x.new_empty(x.shape), list(_float32_like(*weights))),
        _refuse_second_derivative,
    ),
}
"""For each operator the kernels' function that computes it, what it returns of a shape, and its gradients."""


def _kernel(path: str) -> Callable:
    """A function of triton_kernels/, which is imported when it is first called: Triton is slow to import."""
    module, name = path.split('.')

    def run(first: Tensor, *rest: object) -> object:
        kernels = importlib.import_module(f'.triton_kernels.{module}', __package__)
        with torch.cuda.device_of(first):  # Triton starts kernels on the current GPU, whichever has the tensors
            return getattr(kernels, name)(first, *rest)

    return run


for _schema, (_path, _fake, _gradients) in _OPERATORS.items():
    _name = _schema.partition('(')[0]
    _LIBRARY.define(_schema)
    _LIBRARY.impl(_name, _kernel(_path), 'CompositeExplicitAutograd')
    torch.library.register_fake(f'scopevit::{_name}', _fake, lib=_LIBRARY)
    torch.library.register_autograd(f'scopevit::{_name}', _gradients, setup_context=_keep_inputs, lib=_LIBRARY)
