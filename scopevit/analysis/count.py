"""Parameters and multiply-accumulates (MACs) of any model, counted from the operators that it runs.

What is computed is what is counted: on padding as well, and fused attention as its two products.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CONVENTION = (
    'multiply-accumulates of convolutions, linear layers and matrix products, those of attention included, fused or '
    'not; normalisation, activations, sums and interpolation count nothing'
)

LIBRARIES = ('aten', 'mkldnn', 'scopevit')
"""Libraries of operators that are known: torch's own, oneDNN's in torch, ours."""


@dataclass(frozen=True)
class ModuleCount:
    """A module with all that is in it."""

    type: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Count:
    """What :func:`count` found.

    Attributes:
        parameters: Learnable numbers; shared ones count once.
        macs: Multiply-accumulates of one call; ``CONVENTION`` says of what.
        by_kind: The same by kind: 'conv'; 'linear', a product with one matrix for the whole
            batch, 1x1 convolutions among them; 'matmul', products of matrices in pairs, as attention's are.
        modules: By dotted name, in order, ``''`` being the whole model. A module that has
            several names is found under the first.
        uncounted: Operators of other libraries, about which nothing is known.
    """

    parameters: int
    macs: int
    by_kind: dict[str, int]
    modules: dict[str, ModuleCount]
    uncounted: tuple[str, ...]


def count(model: nn.Module, *inputs: object, call: Callable | None = None) -> Count:
    """Count parameters and MACs of ``model(*inputs)`` in evaluation.

    A copy of the model runs, on torch's meta device, where nothing is computed; if the model does
    not run there, where the model is. The model itself stays as it is. What a model keeps from one
    call to the next, as ScopeViT its attention bias, is counted as if it were computed anew:
    ``train()`` has to forget it, and is called on the copy.

    Args:
        inputs: Tensors, or nested lists, tuples and dicts of them; only their shapes matter to most models.
        call: How the model is run, if not by ``model(*inputs)``: a function of both.

    Raises:
        Exception: Whatever the model raises for these inputs.
    """
    model = model.module if is_model_wrapper(model) else model
    call = call or (lambda model, *inputs: model(*inputs))
    try:
        on_meta = tree_map_only(Tensor, partial(torch.empty_like, device='meta'), inputs)
        return _count(_copy_of(model, partial(torch.empty_like, device='meta')), on_meta, call)
    except Exception:  # operators without a meta kernel, or code that reads values
        return _count(_copy_of(model, torch.clone), tree_map_only(Tensor, torch.clone, inputs), call)


def _copy_of(model: nn.Module, new_tensor: Callable) -> nn.Module:
    """A copy of a model in evaluation, each of its tensors replaced; nothing of earlier calls is kept."""
    memo = {}
    for module in model.modules():
        # Copying refuses tensors with a history, as weight norm leaves in a module's attributes.
        kept = [value for value in vars(module).values() if isinstance(value, Tensor)]
        for tensor in [*module._parameters.values(), *module._buffers.values(), *kept]:
            if tensor is None or id(tensor) in memo:
                continue
            new = new_tensor(tensor.detach())
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
    copied = copy.deepcopy(model, memo)
    copied.train()
    copied.eval()
    return copied


def _count(model: nn.Module, inputs: tuple, call: Callable) -> Count:
    names = {module: name for name, module in model.named_modules()}
    with torch.no_grad(), _separate_attention(), _CountingMode(names) as counter:
        call(model, *inputs)

    macs: Counter = Counter()
    for name, own in counter.by_module.items():
        parts = name.split('.') if name else []
        macs.update({'.'.join(parts[:depth]): own for depth in range(len(parts) + 1)})
    modules = {
        name: ModuleCount(type(module).__name__, sum(p.numel() for p in module.parameters()), macs[name])
        for module, name in names.items()
    }
    by_kind = {kind: counter.by_kind[kind] for kind in ('conv', 'linear', 'matmul')}
    return Count(modules[''].parameters, macs[''], by_kind, modules, tuple(sorted(counter.uncounted)))


@contextmanager
def _separate_attention() -> Iterator[None]:
    """Let nn.MultiheadAttention and nn.TransformerEncoder call their operators one by one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _CountingMode(TorchDispatchMode):
    """Counts the operators that run while it is on, for the innermost module that is being called."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.by_module: Counter = Counter()
        self.by_kind: Counter = Counter()
        self.uncounted = set()
        self._running = ['']
        for module, name in names.items():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, name: str, *_: object) -> None:
        self._running.append(name)

    def _leave(self, *_: object) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        library, name = func._schema.name.split('::')
        count_macs = _rule(name.rstrip('_')) if library in LIBRARIES else None
        if count_macs is None:
            # In torch.inference_mode operators come here that consist of others.
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
            if library not in ('aten', 'prim', 'prims'):
                self.uncounted.add(f'{library}::{name}')
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        kind, macs = count_macs(output, *args)
        self.by_kind[kind] += macs
        self.by_module[self._running[-1]] += macs
        return output


def _conv(output: Tensor, x: Tensor, weight: Tensor, bias, stride, padding, dilation, transposed: bool, *_) -> tuple:
    # A 1x1 convolution of all channels is a product with one matrix: which operator a library chooses for
    # that does not matter here. An output element (of a transposed convolution: an input element) meets
    # each weight of one channel.
    is_product = weight[0, 0].numel() == 1 and not transposed and weight.shape[1] == x.shape[1]
    return 'linear' if is_product else 'conv', (x if transposed else output).numel() * weight[0].numel()


def _linear(output: Tensor, x: Tensor, *_) -> tuple:
    return 'linear', output.numel() * x.shape[-1]


def _product(output: Tensor, a: Tensor, b: Tensor, *_) -> tuple:
    """(n, k) x (k, m), the same for a batch, and vectors in place of matrices."""
    shared = b.ndim < 3 or (b.shape[0] > 1 and b.stride(0) == 0)
    return 'linear' if shared else 'matmul', a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _sum_and_product(output: Tensor, summand: Tensor, a: Tensor, b: Tensor, *_) -> tuple:
    return _product(output, a, b)


def _attention(output: object, q: Tensor, k: Tensor, v: Tensor, *_) -> tuple:
    # B * heads * Lq * Lk * (d_k + d_v)
    return 'matmul', q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


_RULES = {
    'convolution': _conv,
    '_convolution': _conv,
    'cudnn_convolution': _conv,
    'linear': _linear,
    '_linear_pointwise': _linear,  # of oneDNN, with what follows it
    'scaled_dot_product_attention': _attention,
    'attention': _attention,  # of scopevit
    **dict.fromkeys(('mm', 'bmm', 'mv', 'dot', 'vdot', '_int_mm', '_scaled_mm'), _product),
    **dict.fromkeys(('addmm', 'baddbmm', 'addbmm', 'addmv', '_addmm_activation'), _sum_and_product),
}


def _rule(name: str) -> Callable | None:
    """How an operator of a known library is counted; None for those that count nothing."""
    # Fused attention has an operator for each kind of device and of kernel; the one named '_math' is made of others.
    is_fused = name.startswith('_scaled_dot_product_') and not name.endswith(('_math', '_backward'))
    return _attention if is_fused else _RULES.get(name)
