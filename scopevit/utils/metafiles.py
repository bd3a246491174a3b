"""The configs of this package with the numbers that their metafiles state."""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from .shipped import shipped


def result(entry: dict) -> str:
    """What was measured with a metafile's config, and on what; else what the paper reports; else nothing."""
    measured = [
        ', '.join(f'{metric} {value}' for metric, value in found['Metrics'].items()) + f' ({found["Dataset"]})'
        for found in entry.get('Results', [])
    ]
    paper = entry['Metadata'].get('Paper Top-1')
    return '; '.join(measured) or (f"Top 1 Accuracy {paper} (the paper's)" if paper else '')


def listed() -> Iterator[tuple[str, dict | None]]:
    """All configs, by the names that load them from here, each with its metafile's entry if it has one.

    Those are the recipes and, in a checkout, those of projects that state numbers.
    """
    recipes = shipped('configs')
    root = recipes.parent
    metafiles = [*recipes.glob('*/metafile.yml'), *root.glob('projects/*/metafile.yml')]
    stated = {entry['Config']: entry for path in metafiles for entry in yaml.safe_load(path.read_text())['Models']}
    paths = {path.relative_to(root).as_posix() for path in recipes.rglob('*.py')}
    for path in sorted(paths | set(stated)):
        yield _name(root, path), stated.get(path)


def backbones() -> Iterator[tuple[str, dict]]:
    """The archs of a ScopeViT, each with what the metafile says of the classifier that has it as its backbone."""
    metafile = shipped('configs') / 'classification' / 'metafile.yml'
    for entry in yaml.safe_load(metafile.read_text())['Models']:
        if 'Backbone Channels' in entry['Metadata']:
            yield entry['Name'].partition('_')[0].removeprefix('scopevit-'), entry['Metadata']


def _name(root: Path, path: str) -> str:
    """What a tool that runs here is given to load a config."""
    if Path(path).is_file() and Path(path).samefile(root / path):
        return path
    folder, _, within = path.partition('/')
    return f'scopevit::{within}' if folder == 'configs' else os.path.relpath(root / path)
