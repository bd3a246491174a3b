"""What tools/train.py and tools/test.py share: configs of any toolbox, on GPUs or CPUs."""

import argparse
import ctypes
import gc
import os
import subprocess
from collections.abc import Container
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..utils.building import building
from ..utils.config import replace_sync_bn, without_weights
from ..utils.errors import UserError, one_line
from ..utils.files import require_writable_folder
from .console import silence_useless_warnings
from .gpu_settings import gpu_settings, settle_gpu
from .preemption import end_with_launcher
from .runner import QuietRunner

# Environment variables in which a launcher states rank, local rank and world size.
_LAUNCHER_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
# Settings that MMEngine's Runner takes all or none of.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare(cfg: Config, args: argparse.Namespace, split: str = 'train') -> None:
    """Settle work dir, launcher and device; call it once, before the Runner is built.

    Args:
        split: What is about to run, 'train' or 'test'.

    Raises:
        UserError: If the work dir cannot be written, the launcher's variables are missing, there are
            more processes than GPUs, or the config's ``gpu`` has an unknown setting.
    """
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config.split('::')[-1]).stem)
    require_writable_folder(cfg.work_dir)
    gpu_settings(cfg)  # a wrong one is named on every machine

    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher != 'none':
        _set_ranks(args.launcher)
    silence_useless_warnings()
    if args.launcher == 'pytorch':
        end_with_launcher()
    if torch.cuda.is_available():
        if args.launcher != 'none':
            _settle_gpu_of_process(args.launcher)
        if (cfg.get('randomness') or {}).get('deterministic'):
            # Before CUDA starts: some versions of torch refuse to multiply matrices without it.
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        settle_gpu(cfg, split, getattr(args, 'cfg_options', None) or ())
    else:
        keep_freed_memory()
        if args.launcher != 'none' and not is_distributed():
            torch.distributed.init_process_group('gloo')  # MMEngine's own start-up needs a GPU for each
        _adapt_to_cpu(cfg)


def _settle_gpu_of_process(launcher: str) -> None:
    """Each process has a GPU of its own, the one of its local rank or, under Slurm, the only one that it is shown."""
    gpus, local_rank = torch.cuda.device_count(), int(os.environ['LOCAL_RANK'])
    if launcher == 'slurm' and gpus == 1:
        # MMEngine takes the GPU of SLURM_LOCALID, and its model wrapper that of LOCAL_RANK.
        os.environ.update(SLURM_LOCALID='0', LOCAL_RANK='0')
    elif local_rank >= gpus:
        sizes = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE')  # Slurm has none that is always set
        processes = next(filter(None, map(os.environ.get, sizes)), f'at least {local_rank + 1}')
        raise UserError(
            f'{processes} processes, but this machine shows {gpus} GPU{"s" * (gpus > 1)}: start {gpus}; '
            'CUDA_VISIBLE_DEVICES= starts any number on the CPU'
        )


def keep_freed_memory() -> None:
    """Let this process keep the memory of tensors that are gone, for those of the next step.

    glibc would return it to the kernel, which clears each page before it hands it out again. What
    the environment says of that (``MALLOC_...``) holds; other C libraries are left alone.
    """
    libc = ctypes.CDLL(None) if os.name == 'posix' else None
    if libc is not None and hasattr(libc, 'mallopt') and not any(name.startswith('MALLOC_') for name in os.environ):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # glibc takes no more
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def build_runner(cfg: Config, checkpoint: dict | None = None, given: dict | None = None) -> Runner:
    """Build the Runner of a config, MMEngine's own or one that it names in ``runner_type``.

    Args:
        checkpoint: The one to go on from, if it has been read.
        given: What the saved config says of its start, see :meth:`QuietRunner.from_cfg`.

    Raises:
        UserError: If a setting is wrong; it names its key.
    """
    if cfg.get('model') is None:
        raise UserError('this config has no model')
    for names in () if 'runner_type' in cfg else _TOGETHER:
        missing = [name for name in names if cfg.get(name) is None]
        if 0 < len(missing) < len(names):
            others = ' and '.join(name for name in names if name not in missing)
            raise UserError(f'{" and ".join(missing)} missing, which the config needs beside its {others}')
    with building(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else QuietRunner.from_cfg(cfg, checkpoint, given)
    if torch.cuda.is_available() and torch.are_deterministic_algorithms_enabled():
        # Segmentation's loss and pooling have no such form on GPUs, and could not be trained at all.
        torch.use_deterministic_algorithms(True, warn_only=True)
    return runner


def build_bare_runner(cfg: Config, config: str, folder: str, given: Container[str] = ()) -> Runner:
    """The Runner of a config's training alone, to run parts of it: nothing is validated, logged or loaded.

    Args:
        cfg: The config, which is changed.
        config: Its name, for messages.
        folder: A folder of its own, for what MMEngine writes.
        given: Keys that the command line has set, which stay.

    Raises:
        UserError: If the config does not train, or a setting is wrong.
    """
    for key in ('train_dataloader', 'optim_wrapper', 'model'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'config {config} does not train: it has no {key}')
    for names in _TOGETHER[1:]:
        cfg.update(dict.fromkeys(names))
    cfg.update(load_from=None, resume=False, log_level='ERROR', visualizer=None)
    cfg.experiment_name = os.path.basename(folder)  # Runners of one process must differ in it
    cfg.model = ConfigDict(without_weights(cfg.model.to_dict()))
    options = argparse.Namespace(config=config, work_dir=folder, launcher='none', local_rank=0, cfg_options=given)
    prepare(cfg, options)
    return build_runner(cfg)


def end_loaders(runner: Runner) -> None:
    """End the processes of the data loaders at once.

    The garbage collector, which has them otherwise, takes away their queues first: they would
    never hear that they should end, and be waited for five seconds each.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        for holder in ('dataloader', 'dataloader_iterator'):  # loops by epochs and by iterations
            iterator = getattr(getattr(loop, holder, None), '_iterator', None)
            if iterator is not None and hasattr(iterator, '_shutdown_workers'):
                iterator._shutdown_workers()


def leave_processes() -> None:
    """Part from the other processes, if there are any; call it when nothing refers to the Runner any more.

    Gloo's threads may hold Python objects. One that lets go of them while the interpreter shuts
    down aborts the process, and with it a training that had succeeded.
    """
    if is_distributed():
        gc.collect()  # the Runner, whose model holds the process group, is part of reference cycles
        torch.distributed.destroy_process_group()


def _set_ranks(launcher: str) -> None:
    """Say which of the processes this one is in the variables that torch, MMEngine and the log go by."""
    if launcher in _LAUNCHER_VARIABLES:
        try:
            rank, local_rank, world_size = (os.environ[name] for name in _LAUNCHER_VARIABLES[launcher])
        except KeyError as error:
            raise UserError(f'--launcher {launcher}: {error} is not set; start it with srun or mpirun') from None
        os.environ.update(RANK=rank, LOCAL_RANK=local_rank, WORLD_SIZE=world_size)
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _first_host(launcher)
        os.environ.setdefault('MASTER_PORT', '29500')
    elif 'RANK' not in os.environ:
        raise UserError(f'--launcher {launcher}: RANK is not set; start it with python -m scopevit launch')


def _first_host(launcher: str) -> str:
    """Where rank 0 runs: this machine, unless Slurm spread the job over several."""
    if launcher == 'slurm' and int(os.environ.get('SLURM_NNODES', 1)) > 1:
        nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST')  # else those of the job
        command = ['scontrol', 'show', 'hostnames', *([nodes] if nodes else [])]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise UserError(
                f'--launcher slurm: scontrol does not tell the first machine ({one_line(error)}); set MASTER_ADDR'
            ) from error
    size = os.environ['WORLD_SIZE']
    if launcher == 'mpi' and os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE', size) != size:
        raise UserError('--launcher mpi on several machines needs MASTER_ADDR, the address of the first one')
    return '127.0.0.1'


def _adapt_to_cpu(cfg: Config) -> None:
    """Replace what needs a GPU, with a log line for each replacement that changes training."""
    if is_distributed():
        wrapper = cfg.setdefault(
            'model_wrapper_cfg',
            ConfigDict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=cfg.get('find_unused_parameters', False),
            ),
        )
        wrapper['device_ids'] = None
        cfg.setdefault('env_cfg', {})['dist_cfg'] = dict(backend='gloo')
    if replace_sync_bn(cfg.get('model', {})) + (cfg.pop('sync_bn', None) is not None):
        print_log('No GPU: SyncBN becomes BN, with statistics per process', logger='current')
    optim_wrapper = cfg.get('optim_wrapper') or {}
    if optim_wrapper.get('type') == 'AmpOptimWrapper':
        # float16 settings of the GPU wrapper; bfloat16 needs no loss scaling.
        dtype = optim_wrapper.pop('dtype', None)
        for key in ('loss_scale', 'use_fsdp'):
            optim_wrapper.pop(key, None)
        if dtype == 'float16' and cfg.get('default_scope') == 'mmpose':  # as the recipe has it, not --amp
            optim_wrapper['type'] = 'OptimWrapper'
            print_log('No GPU: float16 becomes float32, since poses cannot be computed in bfloat16', logger='current')
        else:
            optim_wrapper['type'] = 'scopevit.CPUAmpOptimWrapper'
            print_log('No GPU: mixed precision runs in bfloat16 on the CPU', logger='current')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if (cfg.get(name) or {}).get('pin_memory'):
            cfg[name]['pin_memory'] = False
