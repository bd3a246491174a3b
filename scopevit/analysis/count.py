"""Parameters and multiply-accumulates (MACs) of any model, counted from the operators that it runs.

What is computed is what is counted: on padding as well, and fused attention as its two products.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..utils.wrappers import unwrap

CONVENTION = (
    'multiply-accumulates of convolutions, linear layers and matrix products, those of attention included, fused or '
    'not; normalisation, activations, sums and interpolation count nothing'
)

KNOWN_LIBRARIES = ('aten', 'prim', 'prims', 'mkldnn', 'scopevit')
"""Libraries whose operators either have a formula or multiply no matrices: torch's own, oneDNN's in torch, ours."""


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
    call to the next is counted as if it were computed again: ``train()``, called on the copy, has to forget it.

    Args:
        inputs: Tensors, or nested lists, tuples and dicts of them; only their shapes matter to most models.
        call: How the model is run, if not by ``model(*inputs)``: a function of both.

    Raises:
        Exception: Whatever the model raises for these inputs.
    """
    model = unwrap(model)
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
    by_kind = dict(conv=0, linear=0, matmul=0)
    by_module: Counter[str] = Counter()
    running = _track_modules(model)

    def recorded(operator: object, formula: Callable) -> Callable:
        """A formula of FlopCounterMode that also notes the MACs by kind and for the innermost module."""

        def record(*args: object, **kwargs: object) -> int:
            macs = formula(*args, **kwargs) // 2
            by_kind[_kind(str(operator), *args)] += macs
            by_module[running[-1]] += macs
            return macs

        record._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes
        return record

    formulas = {operator: recorded(operator, formula) for operator, formula in _formulas().items()}
    with (
        torch.no_grad(),
        _separate_attention(),
        _UnknownOperators() as unknown,
        FlopCounterMode(display=False, custom_mapping=formulas),
    ):
        call(model, *inputs)

    def macs_in(name: str) -> int:
        return sum(macs for inner, macs in by_module.items() if f'{inner}.'.startswith(name and f'{name}.'))

    modules = {
        name: ModuleCount(type(module).__name__, sum(p.numel() for p in module.parameters()), macs_in(name))
        for name, module in model.named_modules()
    }
    return Count(modules[''].parameters, modules[''].macs, by_kind, modules, tuple(sorted(unknown.names)))


def _track_modules(model: nn.Module) -> list[str]:
    """Names of the modules that are being called, the innermost last.

    FlopCounterMode's own tracker knows a shared module by its last name and has no order.
    """
    running = ['']

    def leave(*_: object) -> None:
        running.pop()

    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
        module.register_forward_hook(leave, always_call=True)
    return running


class _UnknownOperators(TorchDispatchMode):
    """Notes operators of libraries that are not known; below FlopCounterMode, which takes the others apart."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        if getattr(func, 'namespace', 'aten') not in KNOWN_LIBRARIES:
            self.names.add(func.name().partition('.')[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def _separate_attention() -> Iterator[None]:
    """Let nn.MultiheadAttention and nn.TransformerEncoder call their operators one by one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _kind(operator: str, *args: object) -> str:
    """See :class:`Count`."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if 'conv' in operator:
        # A 1x1 convolution of all channels is a product with one matrix, whichever operator a library takes for it.
        (x, weight), is_transposed = tensors[:2], args[6]
        is_product = weight[0, 0].numel() == 1 and not is_transposed and weight.shape[1] == x.shape[1]
        return 'linear' if is_product else 'conv'
    matrix = tensors[-1]
    is_shared = matrix.ndim < 3 or (matrix.shape[0] > 1 and matrix.stride(0) == 0)
    return 'linear' if is_shared and 'attention' not in operator else 'matmul'


def _formulas() -> dict[object, Callable]:
    """The operations of operators, two for each MAC: FlopCounterMode's formulas, and what it lacks."""
    aten, attention = torch.ops.aten, flop_registry[torch.ops.aten._scaled_dot_product_flash_attention]
    products = (aten.mv, aten.dot, aten.vdot, aten._int_mm, aten.addmv, aten.addbmm, aten._addmm_activation)
    in_place = (aten.addmm_, aten.baddbmm_, aten.addmv_, aten.addbmm_)
    return {
        **flop_registry,
        **dict.fromkeys((*products, *in_place), _product),
        torch.ops.mkldnn._linear_pointwise: lambda x, *_, out_val: 2 * out_val.numel() * x.shape[-1],
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.scopevit.attention: attention,
    }


def _product(*args: object, **_: object) -> int:
    """Of the last two tensors, which may be vectors; a first one is a summand."""
    a, b = [arg for arg in args if isinstance(arg, Tensor)][-2:]
    return 2 * a.numel() * (b.shape[-1] if b.ndim > 1 else 1)
