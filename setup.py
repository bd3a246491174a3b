"""Packaging. The wheel carries configs, tools and model-index.yml under scopevit/.mim, where MIM looks."""

import os
import platform
import re
import shutil
import sys

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*parts):
    with open(os.path.join(HERE, *parts), encoding='utf-8') as file:
        return file.read()


class BuildWithMim(build_py):
    """Copy what MIM reads into the built package; the source tree stays as it is."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = os.path.join(self.build_lib, 'scopevit', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(
                os.path.join(HERE, folder),
                os.path.join(target, folder),
                # The set-up serves a checkout, whose requirements/ and tests/ are not shipped.
                ignore=shutil.ignore_patterns('__pycache__', '*.pyc', 'setup*', 'quickstart.sh', 'run_tests.sh'),
            )
        shutil.copy(os.path.join(HERE, 'model-index.yml'), target)


def kernels():
    """The attention kernel for each kind of CPU, chosen when it runs; where there is no compiler, PyTorch's serves.

    It shares torch's OpenMP threads where that brings GCC's library, as torch's wheels for Linux do.
    """
    instructions = dict(
        avx2=['-mavx2', '-mfma'], avx512=['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mfma']
    )
    if sys.platform != 'linux' or platform.machine() != 'x86_64':
        return []
    return [
        Extension(
            f'scopevit.models.layers._attention_{name}',
            ['scopevit/models/layers/attention.cpp'],
            extra_compile_args=['-O3', '-std=c++17', '-fopenmp', *flags],
            extra_link_args=['-fopenmp'],
            optional=True,
        )
        for name, flags in instructions.items()
    ]


setup(
    name='scopevit',
    version=re.search(r"__version__ = '(.+)'", read('scopevit', 'version.py')).group(1),
    description='ScopeViT, a scale-aware vision transformer backbone for the OpenMMLab toolboxes',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=('scopevit', 'scopevit.*')),
    ext_modules=kernels(),
    # Ranges, for use beside a stack of one's own; the pins of the tested stack are in requirements/.
    install_requires=['torch>=2.1', 'mmengine>=0.10'],
    extras_require={
        # The toolboxes refuse mmcv 2.2. mmpose is installed by hand, with --no-deps: it declares
        # chumpy, which it never imports and which no longer builds.
        'classification': ['mmcv>=2.0,<2.2', 'mmpretrain>=1.2'],
        'detection': ['mmcv>=2.0,<2.2', 'mmdet>=3.3'],
        'segmentation': ['mmcv>=2.0,<2.2', 'mmsegmentation>=1.2', 'ftfy', 'regex'],
        'pose': ['mmcv>=2.0,<2.2', 'mmdet>=3.3', 'xtcocotools', 'json_tricks', 'munkres'],
        'export': ['onnx>=1.19', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
