"""The joints that bodies have here: SMPL's 24, in SMPL's order and by SMPL's names, and COCO's 17 keypoints."""

JOINTS = (
    'pelvis', 'left_hip', 'right_hip', 'spine1', 'left_knee', 'right_knee', 'spine2', 'left_ankle', 'right_ankle',
    'spine3', 'left_foot', 'right_foot', 'neck', 'left_collar', 'right_collar', 'head', 'left_shoulder',
    'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hand', 'right_hand',
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
INDEX = {name: i for i, name in enumerate(JOINTS)}
"""Place of each joint in the order."""


def other_side(name: str) -> str:
    """The joint on the other side of the body; one in the middle is its own."""
    side, _, rest = name.partition('_')
    return {'left': f'right_{rest}', 'right': f'left_{rest}'}.get(side, name)


MIRRORED = tuple(INDEX[other_side(name)] for name in JOINTS)
"""For each joint the one that takes its place in a mirror."""
LANDMARKS = ('nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear')
"""COCO's keypoints that are no joints but places on the skin, which come first in COCO's order."""
COCO_JOINTS = tuple(
    INDEX[f'{side}_{name}']
    for name in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    for side in ('left', 'right')
)
"""The joints that are COCO's other twelve keypoints, in COCO's order."""
SHAPES = 10
"""Shape parameters of a body; each has mean 0 and standard deviation 1 among people."""
