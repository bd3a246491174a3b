"""Packaging. The wheel carries configs, tools and model-index.yml under scopevit/.mim, where MIM looks."""

import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
TASKS = ('classification', 'detection', 'segmentation', 'pose')
# They serve a checkout: its environment, and images that a wheel has no use for.
NOT_IN_WHEELS = (
    '__pycache__',
    '*.pyc',
    'setup*.sh',
    'quickstart.sh',
    'run_tests.sh',
    'fashion_mnist_subset',
    'container',
)


def read(*parts):
    return HERE.joinpath(*parts).read_text(encoding='utf-8')


def requirements(name):
    """The lines of requirements/NAME.txt and of the files that it names."""
    lines = [line.split('#')[0].strip() for line in read('requirements', f'{name}.txt').splitlines()]
    included = [line.split()[1] for line in lines if line.startswith('-r ')]
    return sorted(
        {line for line in lines if line and not line.startswith('-')}.union(
            *(requirements(Path(file).stem) for file in included)
        )
    )


def repository():
    """Web address of the repository that this is built from; None where git does not know one."""
    remote = os.environ.get('SCOPEVIT_REPOSITORY', '')
    if not remote and (HERE / 'PKG-INFO').exists():  # of an sdist
        found = re.search(r'^(?:Home-page:|Project-URL: Homepage,) (https://\S+)$', read('PKG-INFO'), re.MULTILINE)
        return found.group(1) if found else None
    if not remote and (HERE / '.git').exists() and shutil.which('git'):  # not that of a folder around an sdist
        command = ['git', 'config', '--get', 'remote.origin.url']
        remote = subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()
    found = re.fullmatch(
        r'(?:https?://|ssh://)?(?:\w+@)?([\w-]+(?:\.[\w-]+)+)[:/]([\w.-]+/[\w./-]+?)(?:\.git)?/?', remote
    )
    return f'https://{found.group(1)}/{found.group(2)}' if found else None


def long_description(url):
    """The README with links that work where it is shown alone; without an address they become plain words."""
    text = read('README.md')
    if not url:
        text = re.sub(r'</?(picture|source|img)\b[^>]*>\n?', '', text)
        return re.sub(r'!?\[(!\[[^\]]*\]\([^)]*\)|[^\]]*)\]\((?!\w+://|#)[^)\s]+\)', r'\1', text)

    def absolute(found):
        start, target = found.groups()
        if '://' in target or target.startswith('#'):
            return found.group()
        kind = 'raw' if target.endswith(('.svg', '.png', '.jpg')) else 'blob'
        return f'{start}{url}/{posixpath.normpath(f"{kind}/main/{target}")}'

    return re.sub(r'(\]\(|\bsrc="|\bsrcset=")([^)"\s]+)', absolute, text)


class BuildWithMim(build_py):
    """Adds to the built package what MIM, MMEngine and the command scopevit read; the source tree stays as it is.

    Beside the package goes what lets Python find operators for mmcv-lite, see mmcv_finder.py, also
    where a toolbox is imported before scopevit.
    """

    def run(self):
        super().run()
        # An editable package stays where it is; only what lies beside it is installed.
        site = Path(self.distribution.get_command_obj('install').install_lib if self.editable_mode else self.build_lib)
        shutil.copy(HERE / 'scopevit' / 'models' / 'ops' / 'mmcv_finder.py', site / '_scopevit_mmcv.py')
        (site / 'scopevit_mmcv.pth').write_text('import _scopevit_mmcv\n')
        if self.editable_mode:
            return
        target = site / 'scopevit' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(HERE / folder, target / folder, ignore=shutil.ignore_patterns(*NOT_IN_WHEELS))
        shutil.copy(HERE / 'model-index.yml', target)


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
            f'scopevit.models.ops._attention_{name}',
            ['scopevit/models/ops/attention.cpp'],
            extra_compile_args=['-O3', '-std=c++17', '-fopenmp', *flags],
            extra_link_args=['-fopenmp'],
            optional=True,
        )
        for name, flags in instructions.items()
    ]


URL = repository()

setup(
    name='scopevit',
    version=re.search(r"__version__ = '(.+)'", read('scopevit', 'version.py')).group(1),
    description='ScopeViT, a scale-aware vision transformer backbone for the OpenMMLab toolboxes',
    long_description=long_description(URL),
    long_description_content_type='text/markdown',
    author='The ScopeViT contributors',
    url=URL,
    project_urls={'Changelog': f'{URL}/blob/main/CHANGELOG.md', 'Issues': f'{URL}/issues'} if URL else {},
    license='Apache-2.0',
    keywords='vision transformer, backbone, image classification, object detection, segmentation, pose, OpenMMLab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=('scopevit', 'scopevit.*')),
    ext_modules=kernels(),
    install_requires=requirements('runtime'),
    extras_require={
        **{task: requirements(task) for task in (*TASKS, 'export', 'timm')},
        'demo': requirements('optional/demo'),  # set-up, which takes what lies in requirements/, leaves it out
        'all': sorted(set().union(*map(requirements, TASKS))),
    },
    entry_points={'console_scripts': ['scopevit = scopevit.__main__:main']},
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
