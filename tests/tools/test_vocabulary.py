"""The tools' options: one name for one thing, told in one way, and none in a page that a tool does not take."""

import ast
import re

import pytest

from helpers import ROOT
from scopevit.__main__ import COMMANDS
from scopevit.utils.arguments import SHARED

# What else one might call it.
INSTEAD = {
    'config': ['cfg', 'config_file', 'config-file'],
    'checkpoint': ['ckpt', 'weights', 'input', 'model', 'checkpoint_file'],
    'images': ['image', 'img', 'imgs', 'pictures', '--images', '--image', '--img', '--input', '--inputs'],
    'out': ['output', 'dst', 'target'],
    '--checkpoint': ['--ckpt', '--weights-file'],
    '--size': ['--shape', '--img-size', '--imgsz', '--image-size', '--input-size', '--input-shape', '--resolution'],
    '--batch-size': ['--batch', '--bs', '--batchsize', '--images-per-gpu', '--samples-per-gpu'],
    '--count': [
        '--number',
        '--num',
        '--sample',
        '--samples',
        '--num-images',
        '--num-samples',
        '--worst',
        '--max-images',
    ],
    '--out': ['--output', '--out-file', '--output-file', '--save', '--save-to', '--dst'],
    '--out-dir': ['--folder', '--dir', '--output-dir', '--out-folder', '--save-dir', '--show-dir', '--out_dir'],
    '--work-dir': ['--workdir', '--work_dir', '--log-dir', '--project'],
    '--device': ['--gpu', '--gpu-id', '--cuda'],
    '--score-thr': ['--conf', '--thr', '--threshold', '--score-threshold', '--bbox-thr', '--kpt-thr', '--score'],
    '--seed': ['--random-seed', '--rng'],
    '--json': ['--metrics-file', '--json-file', '--dump'],
    '--table': ['--markdown', '--md', '--report', '--page'],
    '--plot': ['--figure', '--fig', '--chart'],
    '--cfg-options': ['--options', '--set', '--opts', '--override', '--overrides', '--cfg'],
    '--timeout': ['--limit', '--time-limit', '--seconds'],
    '--rounds': ['--repeats', '--repeat', '--runs'],
    '--deploy': ['--reparam', '--fuse', '--switch-to-deploy'],
    '--compile': ['--torch-compile', '--torchcompile'],
}
WRONG = {wrong: right for right, names in INSTEAD.items() for wrong in names}
# These take no part of scopevit, so that they say for themselves what SHARED says.
ALONE = ('fashion_mnist.py', 'demo_in_browser.py')
HELPERS = {'add_common_arguments': 'scopevit/utils/arguments.py', 'add_case_arguments': 'projects/robustness/cases.py'}


class Tool:
    """What a file says of its arguments, read without running it."""

    def __init__(self, path):
        self.path = path
        self.nodes = list(ast.walk(ast.parse(path.read_text())))
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]

    def called(self, *names):
        return [call for call in self.calls if getattr(call.func, 'attr', getattr(call.func, 'id', '')) in names]

    def arguments(self):
        """Each argument that is added: its name, whether by its shared wording, and what is said of it."""
        for function in ('add_argument', 'add_arguments'):
            for call in self.called(function):
                said = {word.arg: word.value for word in call.keywords}
                names = [node.value for node in call.args if isinstance(node, ast.Constant)]
                yield from ((name, function == 'add_arguments', said) for name in names)

    def names(self):
        """All that the tool takes, with what it lets others add."""
        own = {name for name, _, _ in self.arguments()}
        if any(name == 'config' and is_shared for name, is_shared, _ in self.arguments()):
            own.add('--cfg-options')  # which add_arguments adds with it
        return own.union(*(Tool(ROOT / file).names() for name, file in HELPERS.items() if self.called(name)))

    def words(self, node):
        """The text of a help, with that of variables in it."""
        parts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and each.value]
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        assigned = [each for each in self.nodes if isinstance(each, ast.Assign) and len(each.targets) == 1]
        values = [each.value for each in assigned if getattr(each.targets[0], 'id', '') in names]
        return ''.join([*map(str, parts), *map(self.words, values)])

    def __str__(self):
        return self.path.relative_to(ROOT).as_posix()


def tools():
    paths = [
        path for folder in ('tools', 'projects', 'scopevit', 'docs/figures') for path in (ROOT / folder).rglob('*.py')
    ]
    paths = [path for path in paths if 'tests' not in path.parts]
    found = [
        Tool(path) for path in sorted([*paths, ROOT / 'tests/tools/demo_in_browser.py']) if 'argu' in path.read_text()
    ]
    return [tool for tool in found if tool.called('add_argument', 'add_arguments')]


@pytest.fixture(scope='module')
def all_tools():
    found = tools()
    assert len(found) > 35
    return found


def test_one_thing_has_one_name(all_tools):
    found = [f'{tool}: {name}, here {WRONG[name]}' for tool in all_tools for name in tool.names() if name in WRONG]
    assert not found


def test_what_several_tools_take_is_said_once(all_tools):
    for tool in all_tools:
        for name, is_shared, said in tool.arguments():
            if name in SHARED and not is_shared:
                assert tool.path.name in ALONE, f'{tool}: {name} is to be added by add_arguments'
                metavar = SHARED[name].get('metavar')
                assert metavar is None or ast.literal_eval(said['metavar']) == metavar, f'{tool}: {name} is a {metavar}'


def test_help_tells_defaults_and_kinds_of_values(all_tools):
    unsaid = []
    for tool in all_tools:
        for name, is_shared, said in tool.arguments():
            if 'SUPPRESS' in ast.unparse(said.get('help', ast.Constant(''))):
                continue
            shared = SHARED[name] if is_shared else {}
            text = tool.words(said['help']) if 'help' in said else shared.get('help', '')
            action = tool.words(said['action']) if 'action' in said else shared.get('action')
            has_value = name.startswith('--') and action != 'store_true'
            if not text or (has_value and 'required' not in said and 'default: ' not in text):
                unsaid.append(f'{tool}: {name}: {text or "no help"}')
            if not name.startswith('--') and 'metavar' not in {**shared, **said}:
                unsaid.append(f'{tool}: {name} has no metavar')
    assert not unsaid


def test_help_begins_with_a_sentence_and_an_example(all_tools):
    for tool in all_tools:
        text = ast.get_docstring(tool.nodes[0], clean=False)
        if str(tool).startswith('scopevit') or tool.path.name == 'cases.py':  # helpers of others
            continue
        assert text.splitlines()[0].endswith(('.', ':')), tool
        module = str(tool).removesuffix('/__main__.py').replace('/', '.')
        assert re.search(rf'^ {{4}}.*({tool}|scopevit |{module} )', text, re.MULTILINE), (
            f'{tool}: the help has no example'
        )


def test_options_are_taken_by_their_whole_names_only(all_tools):
    for tool in all_tools:
        for call in tool.called('ArgumentParser', 'add_parser'):
            assert 'allow_abbrev' in {word.arg for word in call.keywords}, (
                f'{tool}: say tool_parser, or allow_abbrev=False'
            )


def test_every_tool_with_a_config_takes_settings_of_it(all_tools):
    for tool in all_tools:
        if {'config', 'configs'} & {name for name, _, _ in tool.arguments()} and tool.path.name not in ALONE:
            assert '--cfg-options' in tool.names(), tool


def test_commands_of_pages_and_docstrings_have_options_that_there_are(all_tools):
    of = {str(tool): tool.names() for tool in all_tools}
    of.update(
        {f'scopevit {name}': of[f'tools/{file}'] for name, (file, _) in COMMANDS.items() if f'tools/{file}' in of}
    )
    of['tools/dist_train.sh'], of['tools/dist_test.sh'] = of['tools/train.py'], of['tools/test.py']
    folders = [ROOT / name for name in ('docs', 'configs', 'projects', 'tools')]
    pages = [*ROOT.glob('*.md'), *(path for folder in folders for path in folder.rglob('*.md'))]
    pages += [*(tool.path for tool in all_tools), *(ROOT / 'tools').glob('*.sh'), *(ROOT / 'projects').rglob('*.sh')]
    wrong = []
    for page in pages:
        if page.parts[-2] == 'results':  # commands as they were when that was measured
            continue
        text = page.read_text().replace('\\\n', ' ')
        code = [line for block in re.findall(r'```bash\n(.*?)```', text, re.DOTALL) for line in block.splitlines()]
        code += re.findall(r'^ {4}(?:\w+=\S+ )*(?:python|scopevit|bash|"\$PYTHON") .*', text, re.MULTILINE)
        for command in (line.split(' #')[0] for line in code):
            found = re.search(r'((?:tools|projects|docs)/[^\s"]+\.(?:py|sh)|\bscopevit [\w-]+)(.*)', command)
            if found and found[1] in of and found[1] != 'scopevit toolbox':  # which takes other tools' options
                given = set(re.findall(r'(?<![\w-])--[a-z][\w-]*', found[2])) - of[found[1]] - {'--help'}
                wrong += [f'{page.relative_to(ROOT)}: {found[1]} {name}' for name in given]
    assert not wrong


def test_contributing_has_the_vocabulary():
    text = (ROOT / 'CONTRIBUTING.md').read_text().partition('## A tool')[2].partition('\n## ')[0]
    assert [name for name in SHARED if not re.search(rf'`{name}[ `]', text)] == []
