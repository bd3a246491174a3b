"""Compare ScopeViT on a GPU with float64 on the CPU: its maps, and the gradients of its parameters.

    python projects/speed/gpu_accuracy.py                             # seconds; SCOPEVIT_TRITON=0: without the kernels
    python projects/speed/gpu_accuracy.py --size 64 --device cpu      # to see that it runs

An error is the norm of the difference over that of what is compared with; shown are the worst map's and the worst
parameter's. float32 is without TF32; half types compute under autocast. Layer scales are about 1, so that the branches
count, nothing is dropped, and batch norms have fixed statistics. Gradients that are zero but for rounding, as that of
what shifts all logits of a row, are left out. No number is judged here; a result that is not finite ends in status 1.
"""

import torch
from torch import Tensor, nn

from scopevit.models import ScopeViT
from scopevit.utils.arguments import ARCHS, DTYPES, add_arguments, require_device, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.tables import markdown

SIZES = [(256, 256), (200, 333), (37, 61)]
ZERO = 1e-9
"""Of the largest gradient's norm: a smaller one is rounding."""


def model_to_compare(arch: str) -> nn.Module:
    """In float64 on the CPU, with all four maps."""
    torch.manual_seed(0)
    model = ScopeViT(arch, out_indices=(0, 1, 2, 3), rel_pos_drop=0.0).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.normal_(parameter, 1, 0.2)
    return model


def maps_and_gradients(model: nn.Module, images: Tensor, grads: list[Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """By name, in float64 on the CPU: the maps as 'map 1' and so on, and each parameter's gradient."""
    model.zero_grad()
    with torch.autocast(images.device.type, dtype, enabled=dtype.itemsize == 2):
        maps = model(images)
    torch.autograd.backward(maps, [grad.to(x) for x, grad in zip(maps, grads)])
    values = {f'map {i}': x.detach() for i, x in enumerate(maps, start=1)}
    values |= {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: value.double().cpu() for name, value in values.items()}


def errors(values: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, float, str]:
    """The worst map's error, the worst gradient's, and that parameter's name."""
    largest = max(value.norm() for name, value in expected.items() if not name.startswith('map '))
    found = {
        name: ((values[name] - value).norm() / value.norm()).nan_to_num(float('inf')).item()
        for name, value in expected.items()
        if name.startswith('map ') or value.norm() > ZERO * largest
    }
    worst_map = max(error for name, error in found.items() if name.startswith('map '))
    worst = max((name for name in found if not name.startswith('map ')), key=lambda name: found[name])
    return worst_map, found[worst], worst


def compare(arch: str, sizes: list[tuple[int, int]], device: str) -> list[tuple[str, str, float, float, str]]:
    """Size, number format, errors as :func:`errors` gives them, for each size and format."""
    rows = []
    for size in sizes:
        model = model_to_compare(arch)
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            grads = [torch.randn_like(x) for x in model(images)]
        expected = maps_and_gradients(model, images, grads, torch.float64)
        model.float().to(device)
        for dtype in DTYPES:
            values = maps_and_gradients(model, images.float().to(device), grads, getattr(torch, dtype))
            rows.append(('x'.join(map(str, size)), dtype, *errors(values, expected)))
    return rows


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('--arch', choices=ARCHS, default='xtiny', help='variant (default: %(default)s)')
    sizes = 'height and width, or one for a square; again for each of several (default: 256x256, 200x333, 37x61)'
    add_arguments(parser, '--size', default=[], help=sizes)
    add_arguments(parser, '--device', default='cuda', help='for example cuda:1 (default: %(default)s)')
    args = parser.parse_args()
    require_device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = compare(args.arch, args.size or SIZES, args.device)
    where = torch.cuda.get_device_name(args.device) if args.device.startswith('cuda') else 'the CPU itself'
    header = ('Images', 'Computed in', "Worst gradient's parameter", 'Worst gradient', 'Worst map')
    lines = [(size, dtype, name, f'{gradient:.1e}', f'{of_map:.1e}') for size, dtype, of_map, gradient, name in rows]
    print(f'ScopeViT-{args.arch} on {where}, torch {torch.__version__}, beside float64 on the CPU.\n')
    print(markdown([header, *lines], text_columns=3))
    if not all(max(row[2:4]) < float('inf') for row in rows):
        raise UserError('a result is not finite')


if __name__ == '__main__':
    main()
