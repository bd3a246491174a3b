"""What the doctor asks of the machine and its packages; it runs where torch or MMEngine is broken or missing."""

import contextlib
import importlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from ..utils.silence import silence


def import_error(module: str) -> BaseException | None:
    """What importing a module raises; None if it works."""
    try:
        with silence(prints=True):
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a broken package raises, it is what this is about
        return error
    return None


def gpus_of_driver() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows, whether torch can use them or not."""
    if not shutil.which('nvidia-smi'):
        return []
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    result = subprocess.run(command, capture_output=True, text=True)
    return [] if result.returncode else result.stdout.strip().splitlines()


def gpus_of_torch() -> list[str]:
    """Names of the GPUs that torch can use; the driver may know of more."""
    import torch

    with silence():
        if not torch.cuda.is_available():
            return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def unsupported_gpus() -> list[str]:
    """GPUs for whose compute capability the installed torch has no code."""
    import torch

    built = [name.rstrip('af').split('_') for name in torch.cuda.get_arch_list()]
    return [
        f'{name} (compute capability {major}.{minor})'
        for i, name in enumerate(gpus_of_torch())
        for major, minor in [torch.cuda.get_device_capability(i)]
        if built and not any(_runs(kind, int(number), 10 * major + minor) for kind, number in built)
    ]


def _runs(kind: str, built: int, capability: int) -> bool:
    """Whether code for one compute capability runs on a GPU of another."""
    # Machine code runs on later GPUs of its generation, intermediate code (compute_90) on all later ones.
    return built <= capability and (kind == 'compute' or built // 10 == capability // 10)


def cuda_of_torch() -> str | None:
    """CUDA version that the installed torch is built for; None for a CPU build."""
    import torch

    return torch.version.cuda or getattr(torch.version, 'hip', None)


def shared_memory() -> int | None:
    """MiB of shared memory, through which loader processes pass batches; None if the system has no such limit."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage('/dev/shm').total // 2**20
    return None


def attention_kernel() -> bool:
    """Whether the attention kernel for CPUs is there."""
    from ..models.ops.attention import KERNEL

    return KERNEL is not None


def lacking_for_triton() -> str | None:
    """What Triton would need of this machine for a GPU, and is not there."""
    from ..models.ops import gpu

    return gpu.lacking_for_triton()


def kernel_is_possible() -> bool:
    """Whether this platform supports the CPU kernel."""
    import torch

    return (
        sys.platform == 'linux'
        and platform.machine() == 'x86_64'
        and torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')
        and hasattr(torch.compiler, 'is_exporting')
    )


def mmcv_is_compiled() -> bool:
    """Whether mmcv has operators of its own."""
    import mmcv

    return any(Path(mmcv.__file__).parent.glob('_ext.*'))
