"""The pages: links, commands, figures, and the files that GitHub and citation tools read."""

import contextlib
import functools
import importlib.util
import io
import re
import shlex
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from helpers import ROOT
from scopevit import ScopeViT
from scopevit.stack.plan import pinned
from scopevit.utils.config import load_config, parse_pairs

README = (ROOT / 'README.md').read_text()
FIGURES = ROOT / 'docs' / 'figures'
FOLDERS = (
    '.github',
    'configs',
    'docs',
    'projects',
    'scopevit',
    'tests',
    'tools',
)  # the others may hold anybody's files
PAGES = sorted([*ROOT.glob('*.md'), *(page for folder in FOLDERS for page in (ROOT / folder).rglob('*.md'))])
YAML_FILES = [
    *sorted((ROOT / '.github').glob('**/*.yml')),
    ROOT / '.pre-commit-config.yaml',
    ROOT / 'CITATION.cff',
]


def name(path):
    return path.relative_to(ROOT).as_posix()


def without_code(text):
    return re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.DOTALL)


def links(page):
    """Targets of a page's links and images that are not addresses of the web."""
    text = without_code(page.read_text())
    found = re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    # GitHub itself answers under ../../actions, beside the files.
    return [target for target in found if not re.match(r'[a-z]+:|\.\./\.\./actions/', target)]


def anchors(page):
    """The names that GitHub gives a page's headings."""
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    headings = re.findall(r'^#+ (.+)$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def commands(text):
    """Lines of a page's fenced bash, continued ones joined, without comments."""
    blocks = re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for target in links(page):
        path, _, anchor = target.partition('#')
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_index_names_every_page():
    index = ROOT / 'docs' / 'index.md'
    linked = {(index.parent / target).resolve() for target in links(index)}
    pages = [
        page
        for pattern in ('docs/*.md', 'configs/*/README.md', 'projects/*/README.md', '*.md')
        for page in ROOT.glob(pattern)
    ]
    assert {name(page) for page in pages if page != index and page not in linked} == set()


def test_readme_fits_one_reading_and_its_commands_are_fenced():
    assert len(README.splitlines()) <= 150
    assert not re.search(r'\n\n    \S', README)


@pytest.mark.parametrize('words', commands(README), ids=' '.join)
def test_commands_of_the_readme_name_what_exists(words):
    for word in words:
        toolbox, is_config, path = word.partition('::')
        if is_config:
            (package,) = importlib.util.find_spec(toolbox).submodule_search_locations
            assert (Path(package) / '.mim' / 'configs' / path).is_file()
        elif word.startswith(('tools/', 'configs/', 'projects/', 'docs/', '.ci/')):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize('page', ['README.md', 'docs/timm.md'])
def test_first_python_of_a_page_prints_what_its_comment_says(page):
    code = re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), flags=re.DOTALL)[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, 'exec'), {})
    assert code.rstrip().endswith(f'# {printed.getvalue().strip()}')


def test_settings_for_those_who_come_from_elsewhere_are_in_a_config():
    table = (ROOT / 'docs/usage.md').read_text().partition('| There | Here |')[2].partition('\n\n')[0]
    keys = set(re.findall(r'`((?:train_cfg|train_dataloader|optim_wrapper)\.[\w.]+)`', table))
    assert len(keys) > 5
    cfg = load_config('configs/classification/scopevit-tiny_1xb64-30e-ft_custom-256px.py')
    for key in keys - {'train_cfg.max_iters'}:  # which trainings in epochs do not have
        assert functools.reduce(lambda node, part: node[part], key.split('.'), cfg) is not None, key
    (pairs,) = re.findall(r'`--cfg-options ([^`]*)`', table)
    cfg = load_config(cfg.filename, parse_pairs(pairs.split()))
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 50


def test_demo_is_installed_by_what_its_error_says():
    page, tool = ((ROOT / path).read_text() for path in ('docs/demo.md', 'tools/demo.py'))
    (needed,) = re.findall(r'^NEEDED = "(.+)"', tool, flags=re.MULTILINE)
    assert f'pip install {needed}' in page


def test_figure_of_the_architecture_is_what_its_script_draws():
    spec = importlib.util.spec_from_file_location('draw_architecture', FIGURES / 'draw_architecture.py')
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    for theme in ('dark', 'light'):
        drawn, path = figure.draw(theme), FIGURES / f'architecture_{theme}.svg'
        ElementTree.fromstring(drawn)
        assert drawn == path.read_text(), 'run python docs/figures/draw_architecture.py'
        assert f'docs/figures/{path.name}' in README
    assert tuple(figure.STRIDES) == ScopeViT('tiny', out_indices=(0, 1, 2, 3)).feature_strides
    # Where the map divides by the grid, groups are complete, as drawn.
    assert figure.IMAGE // figure.STRIDES[figure.ZOOM] % figure.GRID == 0


def test_figures_are_small():
    assert max(path.stat().st_size for path in FIGURES.iterdir() if path.is_file()) < 400_000


@pytest.mark.parametrize('path', YAML_FILES, ids=name)
def test_yaml_parses(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_citation_is_complete_and_the_readmes():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    paper = citation['preferred-citation']
    (bibtex,) = re.findall(r'```bibtex\n(.*?)```', README, flags=re.DOTALL)
    fields = {
        key: value.strip('{}') for key, value in re.findall(r'(\w+)\s*=\s*(\{.*?\})(?=,?\s*(?:\w+\s*=|\}))', bibtex)
    }
    assert fields['author'] == ' and '.join(f'{a["family-names"]}, {a["given-names"]}' for a in paper['authors'])
    assert fields['title'].replace('}', '') == paper['title']
    for ours, theirs in (
        ('journal', 'journal'),
        ('volume', 'volume'),
        ('pages', 'start'),
        ('year', 'year'),
        ('doi', 'doi'),
    ):
        assert fields[ours] == str(paper[theirs])


def test_workflows_run_what_ci_runs_on_pythons_that_set_up_takes():
    jobs = yaml.safe_load((ROOT / '.github/workflows/tests.yml').read_text())['jobs']
    runs = {job: ' '.join(step.get('run', '') for step in told['steps']) for job, told in jobs.items()}
    assert '.ci/run' in runs['all']
    assert 'tools/run_tests.sh' in runs['fast']
    assert 'tools/run_tests.sh' in (ROOT / '.ci/run').read_text()
    if metadata.version('torch') == pinned('torch'):  # as PyPI has it
        (triton,) = (name.partition(';')[0] for name in metadata.requires('torch') if name.startswith('triton'))
        assert f"'{triton}'" in runs['all']
    assert all(re.fullmatch(r'3\.1[0-4]', python) for python in jobs['fast']['strategy']['matrix']['python'])


def test_hooks_lint_with_the_versions_of_the_tests():
    pins = (ROOT / 'requirements/constraints.txt').read_text().splitlines()
    (repo,) = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    hooks = {hook['id']: hook for hook in repo['hooks']}
    for hook in ('ruff', 'ruff-format'):
        assert hooks[hook]['additional_dependencies'][0] in pins
    assert (ROOT / hooks['readme-tables']['entry'].split()[1]).is_file()


def test_bug_reports_ask_for_what_the_doctor_says():
    form = yaml.safe_load((ROOT / '.github/ISSUE_TEMPLATE/bug.yml').read_text())
    (field,) = [field for field in form['body'] if 'python -m scopevit doctor' in field['attributes']['label']]
    assert field['validations']['required']
