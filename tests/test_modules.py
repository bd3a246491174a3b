"""Which file of tests serves which module: the one of its name, or the one named here.

All of models/ is tested in tests/models.
"""

from pathlib import Path

from helpers import ROOT

PACKAGE, TESTS = ROOT / 'scopevit', ROOT / 'tests'
# Modules that no file of tests has the name of: those that are run by the tests of what uses them.
SERVED_BY = {
    '__main__.py': 'test_main.py',
    'analysis/data_time.py': 'tools/test_data_time.py',
    'analysis/demo_page.py': 'tools/test_demo_page.py',
    'analysis/figures.py': 'tools/test_benchmark.py',
    'analysis/overlays.py': 'tools/test_seeing.py',
    'analysis/predictions/classification.py': 'analysis/test_predictions.py',
    'analysis/predictions/common.py': 'analysis/test_predictions.py',
    'analysis/predictions/detection.py': 'analysis/test_predictions.py',
    'analysis/predictions/pose.py': 'analysis/test_predictions.py',
    'analysis/predictions/segmentation.py': 'analysis/test_predictions.py',
    'analysis/predictions/writing.py': 'analysis/test_predictions.py',
    'analysis/reporting.py': 'analysis/test_measuring.py',
    'apis/export.py': 'tools/test_deploy_and_export.py',
    'apis/people.py': 'tools/test_predict.py',
    'apis/prediction_files.py': 'tools/test_predict.py',
    'apis/renaming.py': 'tools/test_rename_weights.py',
    'apis/samples.py': 'analysis/test_predictions.py',
    'checks/batch.py': 'tools/test_train_bad_input.py',
    'checks/classification.py': 'checks/test_class_folders.py',
    'checks/coco_file.py': 'checks/test_coco.py',
    'checks/dataset.py': 'tools/test_check_dataset.py',
    'checks/loading.py': 'tools/test_check_dataset.py',
    'checks/part.py': 'checks/test_coco.py',
    'checks/paths.py': 'tools/test_check_dataset.py',
    'checks/pose.py': 'checks/test_coco.py',
    'checks/rules.py': 'tools/test_check_dataset.py',
    'engine/hooks.py': 'engine/test_ranks.py',
    'engine/imagenet_variants.py': 'datasets/test_imagenet_variants.py',
    'engine/runner.py': 'engine/test_resume.py',
    'engine/states.py': 'engine/test_resume.py',
    'stack/facts.py': 'stack/test_doctor.py',
    'stack/plan.py': 'tools/test_setup.py',
    'swap/channels.py': 'swap/test_swap.py',
    'swap/ways.py': 'swap/test_swap.py',
    'utils/archive.py': 'utils/test_checkpoint.py',
    'utils/cores.py': 'engine/test_gpu_settings.py',
    'utils/metafiles.py': 'tools/test_list_configs.py',
    'utils/randomness.py': 'engine/test_placed_sampler.py',
    'utils/shipped.py': 'tools/test_setup.py',
    'utils/tables.py': 'tools/test_list_configs.py',
    'utils/weight_names.py': 'tools/test_rename_weights.py',
    'utils/wrappers.py': 'engine/test_augmented_test.py',
}
# Of packages, the folder itself is their module; a version has nothing to test.
WITHOUT = ('__init__.py', 'version.py')


def test_every_module_has_tests_that_one_finds():
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob('*.py') if path.name not in WITHOUT}
    modules = {path for path in modules if path.parts[0] != 'models'}
    alone = {path.as_posix() for path in modules if not (TESTS / path.with_name(f'test_{path.name}')).exists()}
    assert alone == SERVED_BY.keys(), 'a module has gained or lost a file of tests of its name'


def test_every_file_of_tests_in_the_folder_of_a_package_has_a_module():
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {'models'}
    files = {path.relative_to(TESTS) for name in packages for path in (TESTS / name).glob('test_*.py')}
    assert all((TESTS / name).is_file() for name in SERVED_BY.values())
    others = {path.as_posix() for path in files} - set(SERVED_BY.values())
    named = [PACKAGE / Path(name).with_name(Path(name).name.removeprefix('test_')) for name in others]
    nameless = [path for path in named if not path.exists() and not path.with_suffix('').is_dir()]
    assert not nameless, 'name these tests after a module, or here'
